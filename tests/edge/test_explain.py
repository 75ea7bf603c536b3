"""What is expected of the lines of a watchlist: thresholds, recall, and warnings for lines that cannot work."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge import queries
from edge.alarms import Alarms
from edge.bundle import Bundle, ReferenceEntry, write_bundle
from edge.codes import pack
from edge.explain import Explanation, Ground, explain
from edge.explain_warnings import Known, known_of
from edge.monitor_alarms import state_path
from edge.reference import Reference
from edge.watchlist import Query, QueryPart, Watchlist

BITS, HOP_S = 256, 2.5
SPACE = "tiny-000000000000"
RANDOM = np.random.default_rng(7)
DOG, OWL, NOISE, LION = (RANDOM.choice([-1.0, 1.0], BITS) for _ in range(4))


def flipped(logits: np.ndarray, n_bits: int, first: int = 0) -> np.ndarray:
    """Return logits of which n_bits have the other sign."""
    other = logits.copy()
    other[first : first + n_bits] *= -1
    return other


def line(name: str, logits: np.ndarray, **options: object) -> Query:
    """Return a compiled sentence."""
    return Query(name, name, code=pack(logits).tobytes(), logits=tuple(logits.tolist()), **options)  # type: ignore[arg-type]


def both(combine: str, *parts: Query) -> Query:
    """Return a combined line of sentences."""
    own = tuple(QueryPart(part.text, part.code, part.logits) for part in parts)
    name = f" {combine} ".join(part.text for part in parts)
    return Query(name, name, code=own[0].code, logits=own[0].logits, combine=combine, parts=own)  # type: ignore[arg-type]


def reference() -> Reference:
    """A background around NOISE, and dogs at two levels: one of four is heard at 0 dB, three at 10 dB."""
    random = np.random.default_rng(1)
    background = np.stack(
        [NOISE * np.where(random.random(BITS) < 0.2, -1, 1) for _ in range(2_000)]
    )  # 51 +- 6 bits from NOISE
    apart = [20, 120, 120, 120, 20, 60, 60, 120]
    sounds = np.stack([flipped(DOG, n) for n in apart])
    return Reference(
        pack(background), np.zeros(2_000, np.int64), HOP_S, pack(sounds), np.zeros(8, np.int64), np.arange(8),
        np.asarray([0.0] * 4 + [10.0] * 4), ("dog barking",), pack(DOG[None]),
    )  # fmt: skip


def known() -> Known:
    """A bundle that was trained on dogs and owls, and is sure of both."""
    return known_of(("dog barking", "owl hooting"), np.stack([DOG, OWL]).astype(np.float32))


def explained(*lines: Query, is_site: bool = False, per_day: float = 2.0) -> list[Explanation]:
    """Explain lines over the reference."""
    watchlist = Watchlist(SPACE, BITS, "tiny 1", lines)
    alarms = Alarms(watchlist, reference(), HOP_S, per_day)
    return explain(watchlist, known(), Ground(alarms, reference(), is_site), per_day)


def kinds(explanation: Explanation) -> list[str]:
    return [warned.kind for warned in explanation.warnings]


def test_a_line_tells_threshold_and_rate_and_recall_by_level() -> None:
    (dog,) = explained(line("dog", DOG))
    assert dog.threshold_bits is not None
    assert 60 < dog.threshold_bits < 110
    assert (dog.wanted_per_day, dog.expected_per_day) == (2.0, pytest.approx(2.0, rel=1e-3))
    assert dog.recall == ((0.0, 0.25), (10.0, 0.75))
    assert kinds(dog) == []
    assert not dog.is_learnt


def test_more_wanted_alarms_give_more_bits() -> None:
    few, many = explained(line("dog", DOG, alarms_per_day=0.5), line("owl", OWL, alarms_per_day=500.0))
    assert (few.wanted_per_day, many.wanted_per_day) == (0.5, 500.0)
    same = explained(line("dog", DOG, alarms_per_day=500.0))[0]
    assert few.threshold_bits is not None
    assert same.threshold_bits is not None
    assert same.threshold_bits > few.threshold_bits + 3


def test_a_confirmation_needs_a_second_window_of_the_event() -> None:
    (dog,) = explained(line("dog", DOG, confirm=(2, 2)))
    assert dog.recall == ((0.0, 0.0), (10.0, 0.0))
    assert kinds(dog) == ["background"]
    assert "0% of the known sounds at 10 dB" in dog.warnings[0].message


def test_recall_is_of_either_sound_and_unknown_for_both_at_once() -> None:
    dog, lion = line("dog", DOG), line("lion", LION)
    either, both_at_once = explained(both("or", dog, lion), both("and", dog, lion))
    assert either.recall == ((0.0, 0.25), (10.0, 0.75))
    assert both_at_once.recall == ()


def test_another_sentence_for_the_same_sound_has_its_recall_and_another_sound_has_none() -> None:
    hound, owl = explained(line("hound", flipped(DOG, 30, 200)), line("owl", OWL))
    assert hound.recall[-1] == (10.0, 0.75)
    assert owl.recall == ()


def test_a_decoy_takes_back_alarms_both_false_and_true() -> None:
    dog, noise = line("dog", DOG), line("noise", NOISE, decoy=True)
    (alone,), (quiet,) = explained(dog), explained(dog, noise)
    assert alone.expected_per_day is not None
    assert quiet.expected_per_day is not None
    assert quiet.expected_per_day < 0.05 * alone.expected_per_day
    (silenced,) = explained(dog, line("hound", flipped(DOG, 10), decoy=True))
    assert silenced.recall == ((0.0, 0.0), (10.0, 0.0))
    assert kinds(silenced) == ["background", "decoy"]
    assert "'hound' (10 bits" in silenced.warnings[1].message


def test_a_line_that_asks_for_the_background_is_told() -> None:
    (noise,) = explained(line("noise", flipped(NOISE, 8) * 2))
    assert kinds(noise) == ["background"]
    assert "much of the background" in noise.warnings[0].message
    strict = explained(line("noise", flipped(NOISE, 8) * 2, alarms_per_day=0.001))[0]
    assert strict.threshold_bits is not None
    assert strict.threshold_bits < 26
    assert "leave it" in strict.warnings[0].message


def test_lines_that_ask_the_same_are_told_of_each_other() -> None:
    owl, hoot, dog = explained(line("owl", OWL), line("hoot", flipped(OWL, 38)), line("dog", DOG))
    assert (kinds(owl), kinds(hoot), kinds(dog)) == (["line"], ["line"], [])
    assert "'hoot' (38 bits apart)" in owl.warnings[0].message
    assert [kinds(each) for each in explained(line("owl", OWL), line("hoot", flipped(OWL, 39)))] == [[], []]


def test_a_combined_line_is_another_than_its_part() -> None:
    dog, owl = line("dog", DOG), line("owl", OWL)
    assert [kinds(each) for each in explained(dog, both("or", dog, owl))] == [[], []]
    turned = explained(both("or", owl, dog), both("or", dog, owl))
    assert [kinds(each) for each in turned] == [["line"], ["line"]]


@pytest.mark.parametrize(
    ("logits", "is_told"),
    [
        (LION * 0.3, True),  # far and unsure
        (LION, False),  # far and sure: a word for many trained sounds
        (flipped(OWL, 51) * 0.3, False),  # unsure, but a trained sound in other words
        (flipped(OWL, 52) * 0.3, True),
    ],
)
def test_a_sound_never_heard_is_told_with_the_nearest(logits: np.ndarray, is_told: bool) -> None:
    (found,) = explained(line("lion", logits))
    assert kinds(found) == (["unknown"] if is_told else [])
    if is_told:
        assert "never heard 'lion'; the nearest that it knows is" in found.warnings[0].message


def test_each_sentence_of_a_combined_line_is_judged_and_an_example_is_not() -> None:
    lion = line("lion", LION * 0.3)
    assert kinds(explained(both("or", line("dog", DOG), lion))[0]) == ["unknown"]
    assert kinds(explained(replace(lion, kind="sound"))[0]) == []


def test_a_site_counts_when_it_is_learnt() -> None:
    watchlist = Watchlist(SPACE, BITS, "tiny 1", (line("dog", DOG),))
    alarms = Alarms(watchlist, reference(), HOP_S)
    fresh = explain(watchlist, None, Ground(alarms, reference(), True), 2.0)[0]
    alarms.rule.learn(np.full((400, 1), 100), np.zeros(400, np.int64), np.ones(1, bool))
    learnt = explain(watchlist, None, Ground(alarms, reference(), True), 2.0)[0]
    assert (fresh.is_learnt, learnt.is_learnt) == (False, True)
    assert learnt.threshold_bits is not None
    assert 95 < learnt.threshold_bits < 101
    assert fresh.threshold_bits != learnt.threshold_bits


def test_without_a_reference_there_are_warnings_alone() -> None:
    watchlist = Watchlist(SPACE, BITS, "tiny 1", (line("owl", OWL), line("lion", LION * 0.3)))
    owl, lion = explain(watchlist, known(), None, 2.0)
    assert (owl.threshold_bits, owl.expected_per_day, owl.recall, kinds(owl)) == (None, None, (), [])
    assert kinds(lion) == ["unknown"]


def with_reference(tiny: Bundle, folder: Path) -> Bundle:
    """Return the tiny bundle with a reference and a list of what it was trained on."""
    own, stream = reference(), io.BytesIO()
    np.savez(
        stream, background=own.background, runs=own.runs, sounds=own.sounds, sound_text=own.sound_text,
        sound_event=own.sound_event, snr_db=own.snr_db, texts=np.asarray(own.texts), text_codes=own.text_codes,
    )  # fmt: skip
    content = stream.getvalue()
    entry = ReferenceEntry("reference.npz", hashlib.sha256(content).hexdigest(), HOP_S, "made up")
    provenance = {**tiny.manifest.provenance, "classes": ["a low tone", "a high tone"]}
    files: dict[str, bytes | Path] = {p.name: p for p in tiny.folder.iterdir() if p.name != "manifest.json"}
    manifest = replace(tiny.manifest, reference=entry, provenance=provenance)
    return write_bundle(folder / "bundle", manifest, {**files, "reference.npz": content})


def test_the_command_explains(
    needs_onnx: None, tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_reference(tiny, tmp_path)
    path = tmp_path / "watchlist.txt"
    path.write_text("a low tone | active=night\nlow | name=same\na low tone | name=again\n", encoding="utf-8")
    arguments = [str(path), "--explain", "--bundle", str(bundle.folder), "--hop", "2.5"]
    assert queries.main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["line", "bits", "wanted/day", "expected"]
    assert table[1].startswith("a low tone ")
    assert table[2].startswith("  warning: cannot be told from")
    assert queries.main([*arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["type"], first["name"], first["learnt"]) == ("explanation", "a low tone", False)
    assert first["threshold_bits"] > 0
    assert "line" in [warned["kind"] for warned in first["warnings"]]


def test_the_command_takes_what_a_site_has_learnt(
    needs_onnx: None, tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, compiled = with_reference(tiny, tmp_path), tmp_path / "watchlist.json"
    path, store = tmp_path / "watchlist.txt", tmp_path / "site.sqlite"
    path.write_text("a low tone\n", encoding="utf-8")
    ask = [str(path), "--explain", "--json", "--bundle", str(bundle.folder), "--store", str(store)]
    assert queries.main([*ask, "--hop", "2.5"]) == 2
    assert "expected the store of edge-monitor, found none" in capsys.readouterr().err
    assert queries.main([str(path), "-o", str(compiled), "--bundle", str(bundle.folder)]) == 0
    manifest = bundle.manifest
    watchlist = queries.load_watchlist(compiled, manifest.code_space, manifest.code_bits)
    assert isinstance(watchlist, Watchlist)
    alarms = Alarms(watchlist, reference(), HOP_S)
    alarms.rule.learn(np.full((400, 1), 100), np.zeros(400, np.int64), np.ones(1, bool))
    alarms.rule.background.passed[:], alarms.rule.background.heard[:] = 10, 34_560  # of one day
    alarms.save(state_path(store))
    capsys.readouterr()
    assert queries.main([*ask, "--hop", "2.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["learnt"] is True
    assert found["achieved_per_day"] == pytest.approx([10, 4.8, 18.4], abs=0.05)
    assert queries.main([*(each for each in ask if each != "--json"), "--hop", "2.5"]) == 0
    assert "10 (4.8-18)" in capsys.readouterr().out
    assert 95 < found["threshold_bits"] < 101


def test_the_command_tells_what_a_bundle_lacks(
    needs_onnx: None, tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "watchlist.txt"
    path.write_text("a low tone\n", encoding="utf-8")
    bare = write_bundle(
        tmp_path / "bare",
        replace(
            tiny.manifest, provenance={k: v for k, v in tiny.manifest.provenance.items() if k != "classes"}
        ),
        {p.name: p for p in tiny.folder.iterdir() if p.name != "manifest.json"},
    )
    assert queries.main([str(path), "--explain", "--bundle", str(bare.folder)]) == 0
    captured = capsys.readouterr()
    assert "no reference codes" in captured.err
    assert "no list of trained classes" in captured.err
    assert captured.out.splitlines()[1].split() == ["a", "low", "tone", "-", "2", "-"]


@pytest.mark.parametrize(
    "options", [["--hop", "2"], ["--store", "x"], ["--explain", "--hop", "0"], ["--explain", "-o", "x.json"]]
)
def test_options_that_do_not_go_together_are_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        queries.main([str(tmp_path / "watchlist.txt"), *options])
    assert stopped.value.code == 2
