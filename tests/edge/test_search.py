"""edge-search: the nearest observations first, one stable JSON object a line, one line for everything that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge import search
from edge.bundle import Bundle, Calibration, Manifest
from edge.manifest import EncoderEntry, TextInput, format_manifest
from edge.observation import Instant, Observation
from edge.store import ObservationStore

SPACE = "test-0123456789ab"
FIRST_WALL_NS = 1_777_852_800 * 10**9  # 2026-05-04T00:00:00Z
N = 40
KEYS = ["type", "rank", "query", "source", "offset_s", "duration_s", "started_at", "distance", "probability"]


def make_bundle(folder: Path, *, calibrated: bool = True) -> Path:
    """Write a manifest without encoder files: what the tests search with comes from `logits`."""
    folder.mkdir()
    entry = EncoderEntry(
        "text", "onnx", "int8", "text.onnx", "0" * 64, TextInput(64, "tokenizer.json", "0" * 64)
    )
    calibration = Calibration("logistic", -0.1, 9.0, 100, "test") if calibrated else None
    provenance = {"train_run": "", "commit": "", "data": ""}
    manifest = Manifest("test", "1", SPACE, 256, (entry,), calibration, (), (), "CC0-1.0", "", provenance, {})
    (folder / "manifest.json").write_bytes(format_manifest(manifest))
    return folder


def make_store(path: Path, space: str = SPACE) -> Path:
    """Write a store whose observation i lies 3 * i bits from the all-ones code; every fourth has no time."""
    with ObservationStore.open(path, "dev", block_observations=16) as store:
        for seq in (7 * i % N for i in range(N)):  # not in the order of distance
            bits = np.ones(256, np.uint8)
            bits[: 3 * seq] = 0
            wall_ns = None if seq % 4 == 0 else FIRST_WALL_NS + seq * 5 * 10**9
            instant = Instant("boot", seq, wall_ns, "unset" if wall_ns is None else "rtc")
            code = np.packbits(bits, bitorder="little").tobytes()
            store.add(
                Observation(
                    "dev",
                    store.epoch,
                    store.next_seq,
                    code,
                    space,
                    "a.wav",
                    seq * 160_000,
                    32_000,
                    80_000,
                    instant,
                )
            )
    return path


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return --store and --bundle; the query's code is all ones, its first three bits weigh nearly nothing."""
    logits = np.ones(256, np.float32)
    logits[:3] = 0.001

    def text_logits(bundle: Bundle, text: str) -> np.ndarray:
        assert (bundle.manifest.name, text) == ("test", "a dog")
        return logits

    monkeypatch.setattr(search, "_text_logits", text_logits)
    return [
        "--store",
        str(make_store(tmp_path / "a.sqlite")),
        "--bundle",
        str(make_bundle(tmp_path / "bundle")),
    ]


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert search.main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_nearest_come_first(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    records = results(capsys, "a dog", "--top", "3", *options)
    assert [list(record) for record in records] == [KEYS] * 3
    assert [record["rank"] for record in records] == [1, 2, 3]
    assert [record["distance"] for record in records] == [0, 3, 6]
    assert records[1] == {
        "type": "result", "rank": 2, "query": "a dog", "source": "a.wav", "offset_s": 5.0, "duration_s": 2.5,
        "started_at": "2026-05-04T00:00:05.000Z", "distance": 3, "probability": pytest.approx(1 / (1 + math.exp(-8.7))),
    }  # fmt: skip
    assert records[0]["started_at"] is None


def test_top_0_is_everything_once(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    records = results(capsys, "a dog", "--top", "0", *options)
    assert [record["distance"] for record in records] == [3 * i for i in range(N)]
    assert [record["rank"] for record in records] == list(range(1, N + 1))


def test_a_period_bounds_the_results(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    period = ["--since", "2026-05-04T00:00:20Z", "--until", "2026-05-04T02:00:50+02:00"]
    assert search.main(["a dog", *period, *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["offset_s"] for line in captured.out.splitlines()] == [25.0, 30.0, 35.0, 45.0]
    assert captured.err == "edge-search: 10 observations of unknown time are in no period\n"


@pytest.mark.parametrize(
    ("period", "n"),
    [
        (["--since", "1600-01-01"], 30),
        (["--until", "9999-12-31"], 30),
        (["--since", "0001-01-01T00:00+14:00", "--until", "9999-12-31T23:59-12:00"], 30),
        (["--since", "3000-01-01", "--until", "9999-12-31"], 0),
        (["--until", "1600-01-01"], 0),
    ],
)
def test_a_period_may_be_longer_than_any_clock(
    options: list[str], capsys: pytest.CaptureFixture[str], period: list[str], n: int
) -> None:
    assert len(results(capsys, "a dog", "--top", "0", *period, *options)) == n


def test_asymmetric_weighs_bits_on_the_scale_of_distances(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    records = results(capsys, "a dog", "--asymmetric", "--top", "3", *options)
    scale = 256 / (253 + 0.003)
    expected = [0.0, 0.003 * scale, 3.003 * scale]
    assert [record["distance"] for record in records] == pytest.approx(expected, abs=1e-4)
    assert records[1]["probability"] == pytest.approx(1 / (1 + math.exp(-9)), abs=1e-4)


def test_query_by_example(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_sound_logits", lambda bundle, sound: np.full(256, -1.0, np.float32))
    records = results(capsys, "--sound", "phoebe.wav", "--top", "1", *options)
    assert [(record["query"], record["distance"]) for record in records] == [
        ("phoebe.wav", 256 - 3 * (N - 1))
    ]


def test_a_bundle_without_calibration_gives_no_probability(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "raw", calibrated=False)
    records = results(capsys, "a dog", *options, "--bundle", str(bundle))
    assert {record["probability"] for record in records} == {None}
    assert len(records) == 20


def test_people_get_a_table(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert search.main(["a dog", "--top", "2", *options]) == 0
    out = capsys.readouterr().out
    assert "a.wav" in out
    assert "0:00:05.0" in out
    assert "2026-05-04 00:00:05" in out


def test_observations_of_another_bundle_are_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_store(tmp_path / "other.sqlite", "other-999999999999")
    assert search.main(["a dog", *options, "--store", str(other)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"edge-search: error: {other}: expected observations of code space {SPACE}, found other-9"
    )
    assert "--bundle" in error


def test_observations_of_another_bundle_beside_ours_are_counted(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_store(tmp_path / "other.sqlite", "other-999999999999")
    make_store(path)
    assert search.main(["a dog", "--json", "--top", "0", *options, "--store", str(path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == N
    assert captured.err == "edge-search: 40 observations of other code spaces were not searched\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "expected a text, --sound FILE or --image FILE, found 0 of them"),
        (["a dog", "--sound", "b.wav"], 2, "expected a text, --sound FILE or --image FILE, found 2 of them"),
        (["  "], 2, "expected what to look for in words, found an empty text"),
        (["\udcff"], 2, "text: expected text in UTF-8, found '\\udcff'"),
        (["a dog", "--top", "-1"], 2, "--top: expected 0 (all) or more, found -1"),
        (["a dog", "--since", "soon"], 2, "--since: expected a time like"),
        (
            ["a dog", "--store", "none.sqlite"],
            1,
            "none.sqlite: expected a fieldcube store, found no such file",
        ),
        (["a dog", "--bundle", "none"], 1, "none/manifest.json: expected a bundle folder"),
    ],
)
def test_bad_usage_is_one_line(
    options: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert search.main([*options, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edge-search: error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
