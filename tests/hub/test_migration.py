from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ArchiveError
from hub.archive import Archive, ArchiveBlock, Filter
from hub.archive_sqlite import SqliteArchive
from hub.migration import digest, main, migrate
from tests.simulate.archive_blocks import SPACE, block_of, fleet_blocks

Filled = Callable[..., SqliteArchive]

needs_chdb = pytest.mark.skipif(find_spec("chdb") is None, reason="chdb (900 MB) is not here")


@pytest.fixture
def sqlite_of() -> Iterator[Filled]:
    """Return sqlite_of(path, blocks): an archive with these blocks."""
    with ExitStack() as stack:

        def make(path: Path, blocks: Sequence[ArchiveBlock] = ()) -> SqliteArchive:
            archive = SqliteArchive.open(path)
            stack.callback(archive.close)
            archive.add(blocks)
            return archive

        yield make


@pytest.fixture
def blocks() -> list[ArchiveBlock]:
    made = list(fleet_blocks(5_000, 4, run=700, unknown=0.1))
    narrow = block_of(
        5_000, 9, 3, np.ones((40, 8), np.uint8), np.full(40, 10**18), "narrow-1", sources=("a", "b")
    )
    return [*made, narrow]


@needs_chdb
def test_there_and_back_is_the_same(
    tmp_path: Path, chdb_folder: Path, blocks: list[ArchiveBlock], sqlite_of: Filled
) -> None:
    here = f"sqlite:{tmp_path / 'here.sqlite'}"
    there = f"chdb:{chdb_folder}?database=d{secrets.token_hex(8)}"
    back = f"sqlite:{tmp_path / 'back.sqlite'}"
    source = sqlite_of(tmp_path / "here.sqlite", blocks)
    wanted = digest(source)
    assert wanted.n == 5_040
    assert main([here, there]) == 0
    assert main([there, back]) == 0
    returned = sqlite_of(tmp_path / "back.sqlite")
    assert digest(returned) == wanted
    code = np.random.default_rng(0).integers(0, 256, (1, 32), np.uint8)
    assert returned.search(code, SPACE, 50, Filter()) == source.search(code, SPACE, 50, Filter())


def test_a_copy_that_was_broken_off_is_continued(
    tmp_path: Path, blocks: list[ArchiveBlock], sqlite_of: Filled
) -> None:
    source, target = sqlite_of(tmp_path / "a", blocks), sqlite_of(tmp_path / "b")
    target.add(list(islice(source.blocks(), 5)))
    done: list[int] = []
    assert migrate(source, target, done.append) == digest(source)
    assert sum(done) == 3 * 5_040


def test_a_source_that_has_grown_within_a_block_is_copied_whole(tmp_path: Path, sqlite_of: Filled) -> None:
    codes, walls = np.ones((300, 32), np.uint8), np.full(300, 10**18)
    source = sqlite_of(tmp_path / "a", [block_of(0, 1, 0, codes, walls)])
    target = sqlite_of(tmp_path / "b", [block_of(0, 1, 0, codes[:200], walls[:200])])
    assert migrate(source, target).n == 300


def altered(block: ArchiveBlock) -> list[ArchiveBlock]:
    """Return blocks that differ from one in a single fact each."""
    codes, walls = np.full((50, 32), 7, np.uint8), np.full(50, 10**18)
    other_codes, other_walls = codes.copy(), walls.copy()
    other_codes[49, 31] ^= 128
    other_walls[49] += 1
    return [
        block_of(0, 1, 0, other_codes, walls),
        block_of(0, 1, 0, codes, other_walls),
        block_of(0, 1, 1, codes, walls),
        block_of(0, 1, 0, codes, walls, epoch=5),
        block_of(0, 1, 0, codes, walls, sources=("another",)),
    ]


def test_a_target_that_holds_something_else_is_told(tmp_path: Path, sqlite_of: Filled) -> None:
    codes, walls = np.full((50, 32), 7, np.uint8), np.full(50, 10**18)
    block = block_of(0, 1, 0, codes, walls)
    source = sqlite_of(tmp_path / "a", [block])
    for i, other in enumerate(altered(block)):
        with pytest.raises(ArchiveError, match="expected the digest .* give an empty target"):
            migrate(source, sqlite_of(tmp_path / f"b{i}", [other]))
    more = sqlite_of(tmp_path / "more", [block, block_of(50, 1, 50, codes, walls)])
    with pytest.raises(ArchiveError, match="expected 50 observations of device 1 .*, found 100"):
        migrate(source, more)


def test_digests_do_not_depend_on_how_blocks_are_cut(tmp_path: Path, sqlite_of: Filled) -> None:
    codes = np.random.default_rng(1).integers(0, 256, (2_000, 32), np.uint8)
    walls = 10**18 + np.arange(2_000)
    names = ("a.wav", "b.wav", "c.wav")
    whole: Archive = sqlite_of(tmp_path / "a", [block_of(0, 1, 0, codes, walls, sources=names)])
    parts = [
        block_of(s, 1, s, codes[s : s + 500], walls[s : s + 500], sources=names) for s in (0, 500, 1000, 1500)
    ]
    assert digest(whole) == digest(sqlite_of(tmp_path / "b", parts))


def test_a_place_that_is_no_archive_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no database, " * 100)
    assert main([str(tmp_path / "text"), str(tmp_path / "target")]) == 1
    assert "expected an archive" in capsys.readouterr().err
