"""edge-results: every format can be read back by what it is made for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from edge.observation import Detection, Instant, Observation
from edge.results import main
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from edge.store_verdicts import VerdictStore
from edge.verdict import verdict_on

SPACE = "test-0123456789ab"
FIRST_WALL_NS = 1_777_852_800 * 10**9  # 2026-05-04T00:00:00Z
SOURCES = ("north/dawn.wav", "south/dawn.wav", "microphone:USB Audio")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with three sources of ten windows, a detection in every second one; the last source has no time."""
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=8) as writer:
        for source in SOURCES:
            for i in range(10):
                seq = writer.next_seq
                wall_ns = None if source == SOURCES[2] else FIRST_WALL_NS + seq * 5 * 10**9
                instant = Instant("boot", seq, wall_ns, "unset" if wall_ns is None else "rtc")
                one = Observation(
                    "dev", writer.epoch, seq, bytes(32), SPACE, source, i * 160_000, 32_000, 160_000, instant
                )
                query, text = ("owl", "an owl,\tcalling") if i % 4 == 0 else ("rain", "rain")
                found = Detection("dev", writer.epoch, seq, query, text, 60 + i, 0.5 + i / 100, None, None)
                writer.add(one, [found] if i % 2 == 0 else [])
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_csv_has_a_row_for_each_detection(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(capsys, "--store", str(store)))))
    assert len(rows) == 15
    assert rows[1] == {
        "query": "rain", "text": "rain", "source": "north/dawn.wav", "offset_s": "10.0", "duration_s": "5.0",
        "started_at": "2026-05-04T00:00:10.000Z", "distance": "62", "probability": "0.52",
        "false_alarms_per_day": "", "clip": "", "seq": "2", "verdict": "", "note": "",
    }  # fmt: skip
    assert (rows[-1]["text"], rows[-1]["started_at"]) == ("an owl,\tcalling", "")


def test_csv_of_no_detection_is_its_header(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--store", str(store), "--query", "wolf").splitlines() == [
        "query,text,source,offset_s,duration_s,started_at,distance,probability,false_alarms_per_day,clip,seq,"
        "verdict,note"
    ]


def test_csv_tells_verdicts(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreReader.open(store) as reader, VerdictStore.open(store) as verdicts:
        (found,) = (pair for pair in reader.detections() if pair[1].seq == 12)
        verdicts.keep([verdict_on(*found, "wrong", 5, "a truck, braking")])
    rows = list(csv.DictReader(io.StringIO(run(capsys, "--store", str(store)))))
    told = [(row["seq"], row["verdict"], row["note"]) for row in rows if row["verdict"]]
    assert told == [("12", "wrong", "a truck, braking")]


def test_json_has_the_keys_of_edge_monitor(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [json.loads(line) for line in run(capsys, "--store", str(store), "--json").splitlines()]
    assert list(records[0]) == [
        "type", "query", "text", "source", "offset_s", "duration_s", "started_at", "distance", "probability",
        "false_alarms_per_day", "clip",
    ]  # fmt: skip
    assert len(records) == 15


@pytest.mark.parametrize(
    ("arguments", "n"),
    [
        (("--query", "owl"), 9),
        (("--query", "rain"), 6),
        (("--source", "south/dawn.wav"), 5),
        (("--since", "2026-05-04T00:00:20Z"), 8),
        (("--until", "2026-05-04T00:00:20"), 2),
        (("--since", "2026-05-04", "--query", "owl"), 6),
    ],
)
def test_filters(store: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], n: int) -> None:
    assert len(run(capsys, "--store", str(store), "--json", *arguments).splitlines()) == n


def test_observations_of_unknown_time_are_mentioned(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--store", str(store), "--since", "2026-05-04"])
    assert "edge-results: 10 observations of unknown time are in no period" in capsys.readouterr().err


def test_raven_table_of_one_recording(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--store", str(store), "--format", "raven", "--source", "south/dawn.wav")
    rows = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert [row["Selection"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[1] == {
        "Selection": "2", "View": "Spectrogram 1", "Channel": "1", "Begin Time (s)": "10.000000",
        "End Time (s)": "15.000000", "Low Freq (Hz)": "0.0", "High Freq (Hz)": "16000.0",
        "Begin Path": "south/dawn.wav", "File Offset (s)": "10.000000", "Query": "rain", "Probability": "0.5200",
        "Distance": "62",
    }  # fmt: skip


def test_audacity_labels_of_one_recording(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--store", str(store), "--format", "audacity", "--source", "microphone:USB Audio")
    assert out.splitlines()[:2] == ["0.000000\t5.000000\towl 0.50", "10.000000\t15.000000\train 0.52"]


@pytest.mark.parametrize(
    ("form", "ending"), [("raven", ".Table.1.selections.txt"), ("audacity", ".labels.txt")]
)
def test_each_recording_gets_a_file_of_its_own(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, ending: str
) -> None:
    out = tmp_path / "out"
    assert run(capsys, "--store", str(store), "--format", form, "--output", str(out)) == ""
    assert sorted(each.name for each in out.iterdir()) == sorted(
        name + ending for name in ("dawn", "dawn-2", "microphone_USB_Audio")
    )
    assert len((out / f"dawn-2{ending}").read_text().splitlines()) == (6 if form == "raven" else 5)


def test_several_recordings_do_not_fit_one_label_track(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(store), "--format", "audacity"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "expected one recording on standard output, found 3; give --output FOLDER" in captured.err


def test_csv_is_written_to_a_file(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--store", str(store), "--output", str(tmp_path / "new/owl.csv")) == ""
    assert len((tmp_path / "new/owl.csv").read_text().splitlines()) == 16


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--store", "none.sqlite"), 1, "none.sqlite: expected a fieldcube store, found no such file"),
        (("--since", "soon"), 2, "--since: expected a time like"),
        (("--query", "\udcff"), 2, "--query: expected text in UTF-8"),
        (("--output", "/proc/no/where.csv"), 2, "expected a place that can be written"),
    ],
)
def test_bad_usage_is_one_line(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert main(["--store", str(store), *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("edge-results: error: ")
    assert message in lines[0]
