"""edge-results verify: whoever listens answers one by one; each answer is kept before the next question."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge import monitor, results
from edge.bundle import Bundle
from edge.calibration import probability
from edge.manifest import Calibration
from edge.observation import Detection, Instant, Observation
from edge.results_verify import Walk, choose, spread
from edge.store import ObservationStore
from edge.store_reader import ALWAYS, Found, StoreReader
from edge.store_verdicts import VerdictStore, read_verdicts
from edge.verdict import Answer, identity_of, verdict_on
from edge.watchlist import Watchlist, write_watchlist

SPACE = "test-0123456789ab"
FIRST_WALL_NS = 1_777_852_800 * 10**9  # 2026-05-04T00:00:00Z
PROMPT = "right, wrong, unsure, skip, quit, play again [r/w/u/s/q/p]: "

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return make(owl=probabilities, ...): a store with a window and a detection for each; seq goes through all."""

    def build(source: str = "gone.wav", wall: bool = True, **queries: Sequence[float]) -> Path:
        path = tmp_path / "a.sqlite"
        with ObservationStore.open(path, "dev") as writer:
            for query, chances in queries.items():
                for chance in chances:
                    seq = writer.next_seq
                    instant = Instant(
                        "boot", seq, FIRST_WALL_NS + seq * 10**9 if wall else None, "rtc" if wall else "unset"
                    )
                    one = Observation(
                        "dev", writer.epoch, seq, bytes(32), SPACE, source, seq * 8000, 8000, 8000, instant
                    )
                    found = Detection("dev", writer.epoch, seq, query, f"an {query}", 60, chance, 0.25, None)
                    writer.add(one, [found])
        return path

    return build


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return walk(answers, *arguments): what a walk with these lines of standard input prints."""

    def run(answers: str | bytes, *arguments: str) -> str:
        content = answers.encode() if isinstance(answers, str) else answers
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
        assert results.main(["verify", *arguments]) == 0
        return capsys.readouterr().out

    return run


Answers = Callable[..., str]


class Loudspeaker:
    """Stands for the module sounddevice: counts what it plays."""

    class PortAudioError(Exception):
        """What PortAudio raises."""

    def __init__(self) -> None:
        self.n_samples: list[int] = []

    def play(self, samples: Any, rate_hz: int, blocking: bool) -> None:
        self.n_samples.append(len(samples))


def told(store: Path) -> dict[int, tuple[str, str]]:
    return {each.seq: (each.answer, each.note) for each in read_verdicts(store).values()}


def chosen(store: Path, n: int, **options: Any) -> list[Found]:
    with StoreReader.open(store) as reader:
        return choose(reader, read_verdicts(store), n, ALWAYS, **options)


def judge(store: Path, found: Sequence[Found], answer: Answer = "right") -> None:
    with VerdictStore.open(store) as verdicts:
        verdicts.keep(verdict_on(*pair, answer, 0) for pair in found)


def test_each_answer_is_kept_with_its_note(make: Make, walk: Answers) -> None:
    store = make(owl=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    order = [pair[1].seq for pair in chosen(store, 6)]
    out = walk(
        "r\nW a  truck\nunsure\nnonsense\nrig\n\ns\n right\tvery near \n", "--store", str(store), "--n", "6"
    )
    assert told(store) == {
        order[0]: ("right", ""),
        order[1]: ("wrong", "a truck"),
        order[2]: ("unsure", ""),
        order[4]: ("right", "very near"),
    }
    assert out.count(PROMPT) == 9  # six detections, and three answers that were none
    assert out.endswith(PROMPT + "\n")  # at the end of the input


def test_what_is_shown_of_a_detection(make: Make, walk: Answers) -> None:
    out = walk("", "--store", str(make(owl=[0.1])))
    assert out.splitlines() == [
        "",
        "1 of 1  owl: an owl",
        "  2026-05-04T00:00:00.000Z  gone.wav at 0.0 s",
        "  distance 60 bits, probability 0.10, expected false alarms a day 0.25",
        "  clip: none was kept, not found here",
        PROMPT,
    ]


@pytest.mark.parametrize("end", ["q\nr\n", "quit\nr\n", ""])
def test_quitting_and_the_end_of_the_input_keep_what_was_said(make: Make, walk: Answers, end: str) -> None:
    store = make(owl=[0.1, 0.2, 0.3])
    walk(f"w\n{end}", "--store", str(store))
    assert [answer for answer, _ in told(store).values()] == ["wrong"]


def test_an_answer_replaces_the_one_before(
    make: Make, walk: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make(owl=[0.1])
    walk("w a truck\n", "--store", str(store))
    assert "  verdict so far: wrong a truck\n" in walk("s\n", "--store", str(store))
    assert told(store) == {0: ("wrong", "a truck")}
    walk("r\n", "--store", str(store))
    assert told(store) == {0: ("right", "")}


def test_a_walk_that_is_killed_has_lost_nothing(make: Make) -> None:
    store = make(owl=[0.1, 0.2, 0.3, 0.4])
    order = [pair[1].seq for pair in chosen(store, 4)]
    command = [sys.executable, "-m", "edge.results", "verify", "--store", str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"r\nw\n")
        process.stdin.flush()
        out = b""
        while out.count(PROMPT.encode()) < 3:  # the third question: two answers are kept
            piece = process.stdout.read1()  # type: ignore[attr-defined]
            assert piece, out
            out += piece
        process.send_signal(signal.SIGKILL)
    assert told(store) == {order[0]: ("right", ""), order[1]: ("wrong", "")}


def test_the_first_few_are_even_over_the_probabilities(make: Make) -> None:
    store = make(owl=[i / 64 for i in range(64)])
    for n in (4, 8, 16):
        steps = np.diff(sorted(pair[1].probability for pair in chosen(store, n)))
        assert np.ptp(steps) < 1e-9
        assert steps[0] == pytest.approx(1 / n)
    assert len(chosen(store, 100)) == 64


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 100, 1000])
def test_a_spread_has_each_rank_once_and_no_large_holes(n: int) -> None:
    ranks = list(spread(n))
    assert sorted(ranks) == list(range(n))
    for part in (n // 4, n // 2):
        if part:
            edges = [-1, *sorted(ranks[:part]), n]
            assert max(np.diff(edges)) <= 2 * n / part + 1


def test_those_without_a_verdict_come_first(make: Make) -> None:
    store = make(owl=[i / 8 for i in range(8)])
    first = chosen(store, 5)
    judge(store, first)
    assert [identity_of(pair[1]) for pair in chosen(store, 8)[3:]] == [identity_of(pair[1]) for pair in first]


def test_the_queries_take_turns(make: Make) -> None:
    store = make(owl=[0.5] * 20, fox=[0.9] * 2, bat=[0.1])
    assert [pair[1].query for pair in chosen(store, 6)] == ["bat", "fox", "owl", "fox", "owl", "owl"]
    assert [pair[1].query for pair in chosen(store, 3, query="an owl")] == ["owl"] * 3


def test_a_judged_query_waits_for_the_unjudged_ones_of_others(make: Make) -> None:
    store = make(owl=[0.5, 0.6], fox=[0.9] * 3)
    judge(store, chosen(store, 2, query="owl"))
    assert [pair[1].query for pair in chosen(store, 5)] == ["fox", "fox", "fox", "owl", "owl"]


def test_what_was_judged_of_a_query_does_not_cost_it_its_turns(make: Make) -> None:
    store = make(owl=[0.5] * 20, fox=[0.9] * 20)
    judge(store, chosen(store, 5, query="owl"))
    assert [pair[1].query for pair in chosen(store, 4)] == ["fox", "owl", "fox", "owl"]


def test_a_source_is_chosen_before_the_first_few_are(make: Make) -> None:
    make(source="a.wav", owl=[0.1, 0.2, 0.3, 0.4])
    store = make(source="b.wav", owl=[0.9])
    assert [pair[0].source for pair in chosen(store, 1, source="b.wav")] == ["b.wav"]


def test_only_a_period_or_a_source_is_walked_through(make: Make, walk: Answers) -> None:
    store = str(make(owl=[0.5] * 4))
    out = walk("s\ns\n", "--store", store, "--since", "2026-05-04T00:00:02", "--source", "gone.wav")
    assert "1 of 2" in out
    assert walk("", "--store", store, "--source", "other.wav") == "no detections to verify\n"


def test_detections_of_unknown_time_are_mentioned(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert (
        results.main(["verify", "--store", str(make(wall=False, owl=[0.5] * 4)), "--since", "2026-05-04"])
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out == "no detections to verify\n"
    assert "edge-results: 4 observations of unknown time are in no period\n" in captured.err


def test_stored_text_cannot_move_the_cursor(make: Make, walk: Answers) -> None:
    store = make(source="a\x1b[2J\n  verdict so far: right.wav", **{"owl\x1b]0;x\x07\n\u202e": [0.1]})
    out = walk("w \x1b[31mred\x00\n", "--store", str(store))
    assert told(store) == {0: ("wrong", "[31mred")}
    again = walk("", "--store", str(store))
    for text in (out, again):
        assert all(letter.isprintable() for line in text.split("\n") for letter in line)
        assert len(text.split("\n")) <= 9
    assert "  verdict so far: wrong [31mred\n" in again


def test_a_note_that_is_no_utf8_is_kept_as_text(make: Make, walk: Answers) -> None:
    store = make(owl=[0.1])
    walk(b"w caf\xe9\n", "--store", str(store))
    assert told(store) == {0: ("wrong", "caf\\xe9")}


def test_each_is_played_and_again_when_asked(make: Make, tmp_path: Path) -> None:
    recording = tmp_path / "r.wav"
    soundfile.write(recording, np.zeros(80_000, np.float32), 8000)
    store = make(source=str(recording), owl=[0.1, 0.2])
    for portaudio, answers, n_played in (
        (Loudspeaker(), "p\nplay\nr\ns\n", 4),
        (Loudspeaker(), "s\ns\n", 2),
    ):
        with VerdictStore.open(store) as verdicts:
            walking = Walk(verdicts, {}, store, portaudio, None, io.StringIO(answers), io.StringIO())
            walking.through(chosen(store, 2))
        assert len(portaudio.n_samples) == n_played
        assert portaudio.n_samples[0] in (16_000, 24_000)  # the window and a second on each side that has one


def test_what_cannot_be_played_is_told_and_can_be_judged(make: Make, tmp_path: Path) -> None:
    (tmp_path / "r.wav").write_bytes(b"no sound")
    store = make(source=str(tmp_path / "r.wav"), owl=[0.1])
    out = io.StringIO()
    with VerdictStore.open(store) as verdicts:
        walking = Walk(
            verdicts, {}, store, Loudspeaker(), tmp_path / "heard", io.StringIO("p\nu\n"), out, lambda: 7
        )
        assert walking.through(chosen(store, 1)) == 1
    assert out.getvalue().count("r.wav: expected sound that can be read, found") == 3  # saved, played, asked
    assert [each.given_ns for each in read_verdicts(store).values()] == [7]
    nothing = make(bat=[0.1])
    with VerdictStore.open(nothing) as verdicts:
        walking = Walk(verdicts, {}, nothing, Loudspeaker(), None, io.StringIO("p\n"), out)
        walking.through(chosen(nothing, 1, query="bat"))
    assert "no sound was kept of this one" in out.getvalue()


def test_each_is_saved_where_it_can_be_heard_elsewhere(make: Make, walk: Answers, tmp_path: Path) -> None:
    recording = tmp_path / "r.wav"
    soundfile.write(recording, np.zeros(80_000, np.float32), 8000)
    store = make(source=str(recording), owl=[0.1, 0.2])
    out = walk("s\ns\n", "--store", str(store), "--save", str(tmp_path / "heard"))
    names = sorted(path.name for path in (tmp_path / "heard").iterdir())
    assert names == ["00000000_owl.flac", "00000001_owl.flac"]
    assert f"  saved: {tmp_path / 'heard' / names[0]}\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "0"), "--n: expected an integer from 1 to 1000000, found 0"),
        (("--query", ""), "--query: expected non-empty text"),
        (("--since", "soon"), "--since: expected a time like"),
    ],
)
def test_bad_usage_is_one_line(
    make: Make, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    store = make(owl=[0.1])
    assert results.main(["verify", "--store", str(store), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"edge-results: error: {message}")
    assert not store.with_name("a-verdicts.sqlite").exists()


def test_ctrl_c_keeps_what_was_said(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Keyboard(io.StringIO):
        def readline(self, size: int = -1, /) -> str:
            if line := super().readline(size):
                return line
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Keyboard("w\n"))
    store = make(owl=[0.1, 0.2])
    assert results.main(["verify", "--store", str(store)]) == 1
    assert "edge-results: stopped" in capsys.readouterr().err
    assert len(told(store)) == 1


def test_verdicts_on_what_was_heard_are_the_next_runs_probabilities(
    tiny: Bundle,
    watchlist: Watchlist,
    write_tones: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the recording through a filled-in table to edge-monitor's next start, by the commands alone."""
    monkeypatch.chdir(tmp_path)
    write_watchlist(Path("watchlist.json"), watchlist)
    write_tones(Path("day.wav"), *[(hz, 6) for hz in range(300, 900, 60)])
    bundle = ["--bundle", str(tiny.folder)]
    listen = ["--queries", "watchlist.json", *bundle, "--input", "day.wav", "--json"]

    def heard() -> dict[float, tuple[int, float]]:
        assert monitor.main(listen) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return {
            line["offset_s"]: (line["distance"], line["probability"])
            for line in lines
            if line["type"] == "detection" and line["query"] == "low"
        }

    before = heard()
    assert results.main(["--query", "low"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    middle = np.median([int(row["distance"]) for row in rows])
    for row in rows:
        row["verdict"] = "right" if int(row["distance"]) < middle else "wrong"
    with Path("found.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert results.main(["verify", "--import", "found.csv"]) == 0
    capsys.readouterr()
    assert results.main(["precision", *bundle, "--json"]) == 0
    (told_of,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert min(told_of["n_right"], told_of["n_wrong"]) >= 10
    own = Calibration(
        "logistic",
        told_of["fit"]["coefficient"],
        told_of["fit"]["intercept"],
        told_of["fit"]["n"],
        "verdicts",
    )
    after = heard()
    assert after
    assert all(chance == probability(own, bits) for bits, chance in after.values())
    assert all(after[at][1] != before[at][1] for at in after if at in before)
