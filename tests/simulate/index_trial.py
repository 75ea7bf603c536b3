"""Indexes one archive in several ways, and requires the same observations of each: scripts/check_index.sh."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge.observation import Observation
from tests.simulate.card_archive import N_DAMAGED, NAME, kept, write_bundle_of_both, write_cards


class IndexTrial:
    """edge-hub index, run as people run it."""

    def __init__(self, folder: Path, n_files: int, bundle: Path | None) -> None:
        self._folder = folder
        sites = ("alder", "birch", "cedar", "dogwood")
        self.archive = write_cards(folder / "cards", sites, max(4, n_files // len(sites)))
        self._bundle = bundle or write_bundle_of_both(folder / "bundle")

    def start(self, hub: str, *arguments: str) -> subprocess.Popen[str]:
        """Start it on a hub's folder."""
        options = {"--name": NAME, "--folder": str(self._folder / hub), "--bundle": str(self._bundle)}
        given = [each for pair in options.items() for each in pair]
        return subprocess.Popen(
            [sys.executable, "-m", "hub.command", "index", str(self.archive), "--json", *given, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def run(self, hub: str, *arguments: str) -> float:
        """Run it to its end; return how long it took, s."""
        began_s = time.monotonic()
        process = self.start(hub, *arguments)
        out, told = process.communicate()
        assert process.returncode == 0, told
        summary = json.loads(out.splitlines()[-1])
        assert summary["n_problems"] == N_DAMAGED, out
        return time.monotonic() - began_s

    def kept(self, hub: str) -> list[Observation]:
        """Return what a hub has."""
        return kept(self._folder / hub)

    def killed(self, hub: str, n_kills: int, longest_s: float, chosen: random.Random) -> int:
        """Start it again and again and kill it at any moment; return how often it was killed before its end."""
        n_killed = 0
        for _ in range(n_kills):
            process = self.start(hub, "--workers", "2")
            try:
                process.wait(chosen.uniform(0.3, longest_s))
            except subprocess.TimeoutExpired:
                process.kill()
                n_killed += 1
            process.communicate()
        return n_killed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial and print what was measured; an AssertionError tells what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument(
        "--bundle", type=Path, help="of sound, at least (default: a tiny one of sound and pictures)"
    )
    parser.add_argument("--no-ray", action="store_true")
    args = parser.parse_args(argv)
    trial = IndexTrial(args.folder, args.files, args.bundle)
    took = {
        "one process": trial.run("one", "--workers", "1"),
        "two processes": trial.run("two", "--workers", "2"),
    }
    expected = trial.kept("one")
    n_same = len(expected)
    assert trial.kept("two") == expected, "two processes: expected the same as one"
    n_killed = trial.killed("killed", args.kills, took["two processes"] * 0.9, random.Random(1))
    trial.run("killed", "--workers", "2")
    assert trial.kept("killed") == expected, "killed: expected the same as one process"
    table = {"files": sum(1 for path in trial.archive.rglob("*") if path.is_file()), "observations": n_same}
    if not args.no_ray:
        took["Ray, two nodes"] = _on_ray(trial)
        assert trial.kept("ray") == expected, "Ray: expected the same as one process"
    print(
        json.dumps({**table, "killed": n_killed, "seconds": {name: round(s, 1) for name, s in took.items()}})
    )
    return 0


def _on_ray(trial: IndexTrial) -> float:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        return trial.run("ray", "--ray", cluster.address)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
