"""The tables of an archive in ClickHouse, on one server or on a cluster: python -m hub.archive_clickhouse_schema NAME."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from edge.errors import UsageError

TABLE = "observation"
LOCAL_TABLE = "observation_local"  # on each server of a cluster; TABLE then stands for all of them
N_PLANES = 4
WORDS = tuple(f"w{i}" for i in range(N_PLANES))

# In the order in which rows are inserted. block: first_uid of the block it came in, which is kept as a whole or not at
# all; w0...: 64 bits of the code each, so that a prefix is scanned without reading the rest; codes are random and no
# codec shortens them. wall_ns: hub's sentinel -2^63 where unknown.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("uid", "Int64", "CODEC(DoubleDelta, ZSTD)"),
    ("block", "Int64", "CODEC(ZSTD)"),
    ("device", "UInt32", "CODEC(ZSTD)"),
    ("epoch", "Int64", "CODEC(ZSTD)"),
    ("seq", "Int64", "CODEC(DoubleDelta, ZSTD)"),
    ("code_space", "LowCardinality(String)", ""),
    ("n_planes", "UInt8", "CODEC(ZSTD)"),
    *((word, "UInt64", "CODEC(NONE)") for word in WORDS),
    ("source", "String", "CODEC(ZSTD)"),
    ("first_sample", "Int64", "CODEC(DoubleDelta, ZSTD)"),
    ("n_samples", "Int64", "CODEC(ZSTD)"),
    ("sample_rate_hz", "Int64", "CODEC(ZSTD)"),
    ("boot", "String", "CODEC(ZSTD)"),
    ("boottime_ns", "Int64", "CODEC(DoubleDelta, ZSTD)"),
    ("wall_ns", "Int64", "CODEC(DoubleDelta, ZSTD)"),
    ("clock_state", "UInt8", "CODEC(ZSTD)"),
)
_INDICES = (
    "INDEX of_device device TYPE set(64) GRANULARITY 1",
    "INDEX of_time wall_ns TYPE minmax GRANULARITY 1",
    "INDEX of_block block TYPE minmax GRANULARITY 1",
)
# fsync before an insert is acknowledged; marks every 2,048 rows, so that the facts of 100 results are read in little
_DURABLE = "index_granularity = 2048, fsync_after_insert = 1, fsync_part_directory = 1"
_WINDOW = 10_000  # inserts whose token is remembered


def statements(database: str, cluster: str | None = None) -> list[str]:
    """Return what creates the tables. Raises UsageError for names that are no plain identifiers.

    cluster: None = one server; else its name in the servers' configuration, whose macros {shard} and {replica} say
    where each server belongs. A block lies on one shard as a whole, and shards hold every period and device alike.
    """
    for name in (database, *([] if cluster is None else [cluster])):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise UsageError(f"name: expected letters, digits and underscores, found {name!r}")
    body = ",\n  ".join([*(" ".join(each).rstrip() for each in COLUMNS), *_INDICES])
    if cluster is None:
        settings = f"{_DURABLE}, non_replicated_deduplication_window = {_WINDOW}"
        engine = f"MergeTree PARTITION BY code_space ORDER BY uid SETTINGS {settings}"
        return [
            f"CREATE DATABASE IF NOT EXISTS {database}",
            f"CREATE TABLE IF NOT EXISTS {database}.{TABLE} (\n  {body}\n)\nENGINE = {engine}",
        ]
    everywhere = f"ON CLUSTER {cluster}"
    path = f"/clickhouse/tables/{{shard}}/{database}/{LOCAL_TABLE}"
    settings = (
        f"{_DURABLE}, replicated_deduplication_window = {_WINDOW}, "
        "replicated_deduplication_window_seconds = 2592000"
    )
    replicated = f"ReplicatedMergeTree('{path}', '{{replica}}') PARTITION BY code_space ORDER BY uid SETTINGS {settings}"
    distributed = f"Distributed({cluster}, {database}, {LOCAL_TABLE}, intHash64(block))"
    return [
        f"CREATE DATABASE IF NOT EXISTS {database} {everywhere}",
        f"CREATE TABLE IF NOT EXISTS {database}.{LOCAL_TABLE} {everywhere} (\n  {body}\n)\nENGINE = {replicated}",
        f"CREATE TABLE IF NOT EXISTS {database}.{TABLE} {everywhere} AS {database}.{LOCAL_TABLE}\nENGINE = {distributed}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the statements, for clickhouse-client --multiquery."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="name of the database, for example fieldcube")
    parser.add_argument(
        "--cluster", metavar="NAME", help="the cluster's name in remote_servers (none: one server)"
    )
    args = parser.parse_args(argv)
    try:
        print(";\n\n".join(statements(args.database, args.cluster)) + ";")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
