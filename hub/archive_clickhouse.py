"""The archive in ClickHouse: on a server or cluster by URL, or embedded through chdb; exact scans, scaled by shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.batch import MAX_RUN, Range, Run
from edge.errors import ArchiveError, MissingDependencyError, StoreError, WireError
from edge.store_blocks import UNKNOWN_WALL_NS, Columns, pack_columns, planes_of
from edge.urls import without_password
from hub.archive import ArchiveBlock, ArchiveHit, Filter
from hub.archive_blocks import joined, require_codes
from hub.archive_clickhouse_schema import COLUMNS, N_PLANES, TABLE, WORDS, statements
from hub.archive_scan import words_of
from hub.archive_segments import has_period, period_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_DATABASE = "fieldcube"
INSERT_ROWS = 131_072  # of one insert, which becomes one part: all of it is kept, or nothing
_BUCKET = 65_536  # uids that are counted together
_WALK_ROWS = 65_536  # read at once by blocks()
_UIDS_AT_ONCE = 10_000  # in one condition
_NAMES = [name for name, _, _ in COLUMNS]
_TYPES = [kind for _, kind, _ in COLUMNS]
# Foreground and quorum matter on a cluster only: acknowledged means on the disks of the shard's replicas.
_INSERT_SETTINGS = {
    "async_insert": 0,
    "distributed_foreground_insert": 1,
    "max_insert_block_size": 2 * INSERT_ROWS,
    "min_insert_block_size_rows": 2 * INSERT_ROWS,
    "min_insert_block_size_bytes": 2**30,
}
_FACTS = (
    "SELECT uid, device, epoch, seq, wall_ns, source, first_sample, n_samples, sample_rate_hz"
    " FROM {table} WHERE uid IN {uids}"
)


class ClickHouseArchive:
    """The archive in a table of ClickHouse. See hub.archive.Archive for what the methods do.

    One insert takes whole blocks and carries a token, so that one that is tried again is kept once; blocks that are
    there already are left out. It is acknowledged when the table's settings have synced it to the disk.
    """

    @classmethod
    def open(cls, url: str, database: str = DEFAULT_DATABASE) -> ClickHouseArchive:
        """Open the archive of a server, `clickhouse://user:password@host:8123` (clickhouses:// with TLS), or `chdb:PATH`.

        Tables that are missing are created as for one server; on a cluster create them first
        (hub.archive_clickhouse_schema). One process owns a chdb folder. Raises ArchiveError, MissingDependencyError.
        """
        try:
            import clickhouse_connect
        except ImportError as error:
            raise MissingDependencyError(
                "expected clickhouse-connect, found none; run: pip install 'fieldcube[clickhouse]'"
            ) from error
        if url.startswith("chdb:"):
            path = url.removeprefix("chdb:")
            try:
                import chdb  # noqa: F401
            except ImportError as error:
                raise MissingDependencyError(
                    "expected chdb, found none; run: pip install chdb (900 MB)"
                ) from error
            with _mapped(url):
                client = clickhouse_connect.get_client(interface="chdb", path=path)
        else:
            scheme, _, rest = url.partition("://")
            dsn = f"{'https' if scheme == 'clickhouses' else 'http'}://{rest}"
            with _mapped(without_password(url)):
                # queries of several threads would be refused within one session
                client = clickhouse_connect.get_client(dsn=dsn, autogenerate_session_id=False)
        return cls(client, without_password(url), database)

    def __init__(self, client: Any, place: str, database: str = DEFAULT_DATABASE) -> None:
        self.place = place
        self._client = client
        self._table = f"{database}.{TABLE}"
        with _mapped(place):
            for statement in statements(database):
                client.command(statement)

    def add(self, blocks: Sequence[ArchiveBlock]) -> None:
        """Keep blocks; they are on the disk when it returns."""
        with _mapped(self.place):
            new: list[ArchiveBlock] = []
            for block in self._absent(blocks):
                if new and sum(each.n for each in new) + block.n > INSERT_ROWS:
                    self._insert(new)
                    new = []
                new.append(block)
            if new:
                self._insert(new)

    def search(
        self,
        codes: NDArray[np.uint8],
        code_space: str,
        k: int,
        where: Filter,
        max_distance: Sequence[int] | None = None,
    ) -> list[list[ArchiveHit]]:
        """Return for each query the k nearest by (distance, uid), exact."""
        limits = [None] * len(codes) if max_distance is None else list(max_distance)
        with _mapped(self.place):
            nearest = [
                self._nearest(words_of(code), code_space, k, where, most)
                for code, most in zip(codes, limits, strict=True)
            ]
            if not any(nearest):
                self._require_codes(code_space, codes.shape[1] // 8)
            return self._hits(nearest)

    def histogram(
        self, code: NDArray[np.uint8], code_space: str, where: Filter, max_distance: int, bin_s: int
    ) -> Mapping[int, int]:
        """Return how many observations lie within max_distance, by floor(wall_ns / 1e9 / bin_s)."""
        words = words_of(code)
        conditions = [*_conditions(words.size, where), f"wall_ns != {UNKNOWN_WALL_NS}"]
        conditions.append(f"{_distance(words)} <= {int(max_distance)}")
        sql = (
            f"SELECT intDiv(wall_ns, {int(bin_s) * 10**9}) AS bin, count() FROM {self._table}"
            f" WHERE {' AND '.join(conditions)} GROUP BY bin"
        )
        with _mapped(self.place):
            counted = self._rows(sql, {"space": code_space})
            if not counted:
                self._require_codes(code_space, words.size)
        return {int(number): int(n) for number, n in counted}

    def counts(self) -> Mapping[tuple[int, str], int]:
        """Return how many observations there are of each (device, code space)."""
        sql = f"SELECT device, code_space, count() FROM {self._table} GROUP BY device, code_space"
        with _mapped(self.place):
            return {(int(device), str(space)): int(n) for device, space, n in self._rows(sql)}

    def blocks(self, first_uid: int = 0) -> Iterator[ArchiveBlock]:
        """Walk through everything in the order of uid."""
        next_uid = first_uid
        while True:
            sql = f"SELECT {', '.join(_NAMES)} FROM {self._table} WHERE uid >= {int(next_uid)} ORDER BY uid LIMIT {_WALK_ROWS}"
            with _mapped(self.place):
                columns = self._client.query(sql, column_oriented=True).result_columns
            if not columns or not len(columns[0]):
                return
            held = dict(zip(_NAMES, columns, strict=True))
            yield from _blocks(held)
            next_uid = int(held["uid"][-1]) + 1

    def ranges(self) -> Sequence[Range]:
        """Return the uids that are there as (first, n); one row for each bucket of uids that has no gap."""
        sql = f"SELECT min(uid), max(uid), count() FROM {self._table} GROUP BY intDiv(uid, {_BUCKET}) ORDER BY min(uid)"
        found: list[Range] = []
        with _mapped(self.place):
            for first, last, n in self._rows(sql):
                if last - first + 1 == n:
                    found.append((int(first), int(n)))
                    continue
                where = f"uid BETWEEN {int(first)} AND {int(last)}"
                rows = self._rows(f"SELECT DISTINCT uid FROM {self._table} WHERE {where} ORDER BY uid")
                found += joined((int(uid), 1) for (uid,) in rows)
        return joined(found)

    def codes_of(self, uids: Sequence[int]) -> Mapping[int, bytes]:
        """Return the codes of observations that are there."""
        found: dict[int, bytes] = {}
        select = f"SELECT uid, n_planes, {', '.join(WORDS)} FROM {self._table} WHERE uid IN "
        with _mapped(self.place):
            for some in _parts(uids):
                for uid, n_planes, *words in self._rows(select + _tuple(some)):
                    found[int(uid)] = np.array(words[:n_planes], "<u8").tobytes()
        return found

    def close(self) -> None:
        """Free what is held."""
        self._client.close()

    def _absent(self, blocks: Sequence[ArchiveBlock]) -> list[ArchiveBlock]:
        """Return the blocks that are not there yet, each once."""
        unique = {block.first_uid: block for block in reversed(blocks)}
        known: set[int] = set()
        for some in _parts(sorted(unique)):
            sql = f"SELECT DISTINCT block FROM {self._table} WHERE block IN {_tuple(some)}"
            known |= {int(block) for (block,) in self._rows(sql)}
        return [unique[uid] for uid in sorted(unique) if uid not in known]

    def _insert(self, blocks: Sequence[ArchiveBlock]) -> None:
        parts = [_columns(block) for block in blocks]
        columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
        content = ",".join(f"{block.first_uid}+{block.n}" for block in blocks)
        token = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        self._client.insert(
            self._table,
            columns,
            column_names=_NAMES,
            column_type_names=_TYPES,
            column_oriented=True,
            settings={**_INSERT_SETTINGS, "insert_deduplication_token": token},
        )

    def _nearest(
        self, words: NDArray[np.uint64], code_space: str, k: int, where: Filter, most: int | None
    ) -> list[tuple[int, int]]:
        """Return uid and distance of the k nearest: reads codes and what the filter needs, no other column."""
        conditions = [*_conditions(words.size, where), *([] if most is None else [f"d <= {int(most)}"])]
        sql = (
            f"SELECT uid, {_distance(words)} AS d FROM {self._table} WHERE {' AND '.join(conditions)}"
            f" ORDER BY d, uid LIMIT {int(k)}"
        )
        return [(int(uid), int(d)) for uid, d in self._rows(sql, {"space": code_space})]

    def _hits(self, nearest: Sequence[Sequence[tuple[int, int]]]) -> list[list[ArchiveHit]]:
        facts: dict[int, Sequence[Any]] = {}
        for some in _parts(sorted({uid for found in nearest for uid, _ in found})):
            rows = self._rows(_FACTS.format(table=self._table, uids=_tuple(some)))
            facts.update({int(row[0]): row for row in rows})
        return [[_hit(facts[uid], distance) for uid, distance in found] for found in nearest]

    def _require_codes(self, code_space: str, n_planes: int) -> None:
        """Raise ArchiveError where nothing was found because there is nothing to compare with."""
        sql = f"SELECT code_space, max(n_planes) FROM {self._table} GROUP BY code_space"
        require_codes(self.place, {str(space): int(n) for space, n in self._rows(sql)}, code_space, n_planes)

    def _rows(self, sql: str, parameters: Mapping[str, str] | None = None) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._client.query(sql, parameters=parameters).result_rows
        return rows


def _distance(words: NDArray[np.uint64]) -> str:
    """Return the distance of a code's first bits to a query; a sum of UInt8 is a UInt16 there."""
    return " + ".join(
        f"bitCount(bitXor({name}, {int(word)}))" for name, word in zip(WORDS, words, strict=False)
    )


def _conditions(n_planes: int, where: Filter) -> list[str]:
    conditions = ["code_space = {space:String}", f"n_planes >= {n_planes}"]
    if where.devices is not None:
        conditions.append(f"device IN {_tuple(sorted(where.devices))}" if where.devices else "0")
    if has_period(where):
        low, high = period_of(where)
        conditions.append(f"wall_ns >= {low} AND wall_ns < {high}")
    if where.hours is not None:
        hour = f"positiveModulo(intDiv(intDiv(wall_ns, 1000000000) + ({int(where.utc_offset_s)}) + 864000, 3600), 24)"
        asked = f"{hour} IN {_tuple(sorted(where.hours))}" if where.hours else "0"
        conditions.append(f"wall_ns != {UNKNOWN_WALL_NS} AND {asked}")
    return conditions


def _columns(block: ArchiveBlock) -> list[NDArray[Any]]:
    """Return a block as the columns of the table. Raises WireError, StoreError for a damaged run."""
    run = block.run
    columns, planes = run.unpacked(), planes_of(run.codes, run.n)
    rows = np.arange(run.n)
    zeros = np.zeros(run.n, np.uint64)
    return [
        block.first_uid + rows,
        np.full(run.n, block.first_uid),
        np.full(run.n, block.device, np.uint32),
        np.full(run.n, block.epoch),
        run.first_seq + rows,
        np.full(run.n, run.code_space, object),
        np.full(run.n, len(planes), np.uint8),
        *(planes[i] if i < len(planes) else zeros for i in range(N_PLANES)),
        np.array(run.sources, object)[columns.source],
        columns.first_sample,
        columns.n_samples,
        columns.sample_rate_hz,
        np.array(run.boots, object)[columns.boot],
        columns.boottime_ns,
        columns.wall_ns,
        columns.clock_state.astype(np.uint8),
    ]


def _blocks(held: Mapping[str, Sequence[Any]]) -> Iterator[ArchiveBlock]:
    """Give rows in the order of uid as blocks: one wherever something is not contiguous."""
    ints = {
        name: np.asarray(held[name], np.int64)
        for name in ("uid", "device", "epoch", "seq", "n_planes", *Columns.__dataclass_fields__)
        if name not in ("source", "boot")
    }
    spaces = _numbered(held["code_space"])[0]
    changes = (np.diff(ints["uid"]) != 1) | (np.diff(ints["seq"]) != 1) | (np.diff(spaces) != 0)
    for name in ("device", "epoch", "n_planes"):
        changes |= np.diff(ints[name]) != 0
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(spaces)]
    planes = np.stack([np.asarray(held[word], np.uint64) for word in WORDS])
    for first, last in pairwise(edges):
        for start in range(first, last, MAX_RUN):
            part = slice(start, min(start + MAX_RUN, last))
            source, sources = _numbered(held["source"][part])
            boot, boots = _numbered(held["boot"][part])
            columns = Columns(
                source=source,
                boot=boot,
                **{name: ints[name][part] for name in Columns.__dataclass_fields__ if name in ints},
            )
            packed = planes[: int(ints["n_planes"][start]), part].astype("<u8").tobytes()
            space, n = str(held["code_space"][start]), len(source)
            run = Run(int(ints["seq"][start]), n, space, sources, boots, pack_columns(columns), packed)
            uid, device, epoch = (int(ints[name][start]) for name in ("uid", "device", "epoch"))
            yield ArchiveBlock(uid, device, epoch, run)


def _numbered(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return ids int64 [n] in a list of the names that occur, in the order in which they do."""
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(str(name), len(numbers)) for name in names), np.int64, len(names))
    return ids, tuple(numbers)


def _hit(row: Sequence[Any], distance: int) -> ArchiveHit:
    uid, device, epoch, seq, wall_ns, source, first_sample, n_samples, sample_rate_hz = row
    known = None if wall_ns == UNKNOWN_WALL_NS else int(wall_ns)
    return ArchiveHit(
        int(uid),
        int(device),
        int(epoch),
        int(seq),
        distance,
        known,
        str(source),
        int(first_sample),
        int(n_samples),
        int(sample_rate_hz),
    )


def _parts(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(uids), _UIDS_AT_ONCE):
        yield uids[start : start + _UIDS_AT_ONCE]


def _tuple(numbers: Sequence[int]) -> str:
    return f"({', '.join(str(int(number)) for number in numbers)})"


@contextmanager
def _mapped(place: str) -> Iterator[None]:
    """Turn errors of ClickHouse and of damaged blocks into ArchiveError."""
    from clickhouse_connect.driver.exceptions import Error

    try:
        yield
    except (Error, StoreError, WireError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ArchiveError(
            f"{place}: expected an archive that can be read and written, found {first_line}"
        ) from error
