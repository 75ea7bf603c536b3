"""edge-check: fails where the field would fail, and says what to do."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import check, check_board
from edge.audio_events import AudioEvent, Block, Gap
from edge.bundle import Bundle
from edge.check_board import Check, check_clock, check_disk, check_memory, check_microphone
from edge.check_encoders import agreement, check_speed, golden_samples, n_broken
from edge.config import Audio, Monitor
from edge.encoder import AudioEncoder, available_runtimes
from edge.errors import AudioError
from edge.manifest import format_manifest
from edge.observation import Instant
from edge.watchlist import Watchlist, write_watchlist

Run = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture(autouse=True)
def recorder_memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every check see a recorder's memory: that of the tests' own process holds whatever else they import."""
    status = tmp_path_factory.mktemp("proc") / "status"
    status.write_text("VmRSS:\t  98304 kB\n", encoding="ascii")
    monkeypatch.setattr(check, "check_memory", lambda: check_memory(status))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return run(arguments): the exit code and the checks by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_board, "_free_bytes", lambda _: 10**10)

    def main(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code = check.main([*arguments, "--json"])
        return code, {each["name"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}

    return main


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.folder, folder)
    return folder


def test_a_good_board_passes_every_check(
    run: Run, tiny: Bundle, watchlist: Watchlist, tmp_path: Path
) -> None:
    write_watchlist(tmp_path / "w.json", watchlist)
    code, found = run("--bundle", str(tiny.folder), "--queries", "w.json")
    assert code == 0
    assert all(each["ok"] for each in found.values())
    expected = {"clock", "disk", "bundle", "licence", "calibration", "encoder", "speed", "memory", "queries"}
    expected |= {f"golden audio {runtime}" for runtime in available_runtimes()}
    expected |= {"golden text onnx"} if "onnx" in available_runtimes() else set()
    assert expected <= set(found)
    for each in found.values():
        assert list(each) == ["type", "name", "ok", "value", "unit", "limit", "hint"]
        assert each["type"] == "check"
    assert (found["licence"]["value"], found["queries"]["value"]) == ("CC0-1.0", 2)
    assert found["encoder"]["value"] == available_runtimes()[0]
    assert (found["speed"]["limit"], found["memory"]["limit"]) == (0.7, 150)
    assert "microphone" not in found


def test_a_changed_file_fails(run: Run, copy: Path) -> None:
    with (copy / "audio.onnx").open("ab") as file:
        file.write(b"\0")
    code, found = run("--bundle", str(copy))
    assert code == 1
    assert not found["bundle"]["ok"]
    assert "audio.onnx: expected sha256" in found["bundle"]["hint"]
    assert "encoder" not in found  # nothing that was changed is run


def test_a_missing_bundle_fails(run: Run) -> None:
    code, found = run("--bundle", "gone")
    assert code == 1
    assert "expected a bundle folder" in found["bundle"]["hint"]


def test_a_text_encoder_may_be_left_off(run: Run, copy: Path) -> None:
    (copy / "text.onnx").unlink()
    (copy / "tokenizer.json").unlink()
    code, found = run("--bundle", str(copy))
    assert code == 0
    assert found["bundle"]["hint"] == "left off: text.onnx"
    assert "golden text onnx" not in found


def with_golden(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the golden windows of a bundle, with the hash that goes with them."""
    bundle = Bundle.load(folder)
    arrays = bundle.golden("audio")
    assert arrays is not None
    change(arrays)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    (folder / "golden_audio.npz").write_bytes(stream.getvalue())
    sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
    golden = tuple(replace(g, sha256=sha256) if g.modality == "audio" else g for g in bundle.manifest.golden)
    (folder / "manifest.json").write_bytes(format_manifest(replace(bundle.manifest, golden=golden)))


def test_a_bit_that_had_to_be_equal_fails(run: Run, copy: Path, runtime: str) -> None:
    def flip(arrays: dict[str, Any]) -> None:
        arrays[f"logits_{runtime}"][2, 5] *= -1
        assert abs(arrays[f"logits_{runtime}"][2, 5]) > 0.02

    with_golden(copy, flip)
    code, found = run("--bundle", str(copy))
    assert code == 1
    golden = found[f"golden audio {runtime}"]
    assert (golden["ok"], golden["value"], golden["unit"], golden["limit"]) == (False, 1, "wrong bits", 0)
    assert found[f"golden audio {runtime} bits"]["ok"]  # one bit of thousands


def test_golden_codes_of_another_encoder_fail(run: Run, copy: Path, runtime: str) -> None:
    def shuffle(arrays: dict[str, Any]) -> None:
        arrays[f"logits_{runtime}"] = arrays[f"logits_{runtime}"][::-1].copy()

    with_golden(copy, shuffle)
    code, found = run("--bundle", str(copy))
    assert code == 1
    assert found[f"golden audio {runtime} bits"]["value"] < 0.8
    assert "use another --runtime" in found[f"golden audio {runtime} bits"]["hint"]


def test_golden_inputs_that_are_not_there_fail(run: Run, copy: Path, runtime: str) -> None:
    with_golden(copy, lambda arrays: arrays.pop(f"logits_{runtime}"))
    code, found = run("--bundle", str(copy))
    assert code == 1
    assert (
        f"expected golden audio inputs for {runtime}, found none" in found[f"golden audio {runtime}"]["hint"]
    )


def test_agreement_is_counted_from_the_golden_median() -> None:
    golden = np.array(
        [[1.0], [2.0], [3.0], [4.0]], np.float32
    )  # the sign never changes: raw bits prove nothing
    assert agreement(golden, golden) == 1.0
    assert agreement(golden, golden[::-1]) == 0.0
    assert agreement(golden, golden[[0, 2, 1, 3]]) == 0.5
    assert agreement(golden[:3], golden[:3] - np.float32(1e-6)) == 1.0  # rounding decides no bit


def test_bits_within_the_tolerance_may_differ() -> None:
    golden = np.array([[0.01, -0.01, 0.5, -0.5]], np.float32)
    assert n_broken(golden, -golden, 0.02) == 2
    assert n_broken(golden, golden, 0.0) == 0


def test_golden_int16_is_scaled_as_export_scales_it() -> None:
    assert golden_samples(np.array([32767, -32767], np.int16)).tolist() == [1.0, -1.0]
    assert golden_samples(np.array([0.5])).dtype == np.float32


def test_an_encoder_that_cannot_keep_up_fails(encoder: AudioEncoder) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.4  # every window takes 0.4 s
        return now[0]

    slow = check_speed(encoder, None, clock)  # half a window: 0.5 s
    assert (slow.ok, slow.value) == (False, pytest.approx(0.8))
    assert "longer hop" in str(slow.hint)
    assert check_speed(encoder, 1.0, clock).value == pytest.approx(0.4)
    assert check_speed(encoder, 1.0, clock).ok


@pytest.mark.parametrize(("used_kb", "ok"), [(100_000, True), (150_000, False)])
def test_memory_has_a_limit(used_kb: int, ok: bool, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nVmHWM:\t 999999 kB\nVmRSS:\t {used_kb} kB\n")
    found = check_memory(status)
    assert (found.ok, found.value) == (ok, pytest.approx(used_kb * 1.024e-3))
    assert check_memory(tmp_path / "none").ok


@pytest.mark.parametrize(
    ("free_bytes", "ok", "hint"),
    [(499e6, False, "make room"), (600e6, True, "lower clip_quota_bytes"), (9e9, True, None)],
)
def test_a_full_disk_fails(free_bytes: float, ok: bool, hint: str | None, tmp_path: Path) -> None:
    monitor = Monitor(store=tmp_path / "not" / "yet" / "s.sqlite")
    found = check_disk(monitor, lambda folder: int(free_bytes) if folder == tmp_path else 0)
    assert found.ok is ok
    assert (hint or "") in (found.hint or "")
    assert (hint is None) == (found.hint is None)


class Source:
    """A source that gives what it is told to."""

    sample_rate_hz = 8_000

    def __init__(self, *events: AudioEvent) -> None:
        self._events = events

    def events(self) -> Iterator[AudioEvent]:
        yield from self._events


def block(samples: np.ndarray[Any, Any]) -> Block:
    return Block("mic", samples.astype(np.float32), 0, Instant("b", 0, None, "unset"))


def test_a_microphone_that_gives_sound_passes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 20_000)
    found = check_microphone(Audio(microphone=""), lambda _: Source(block(noise)))
    assert found.ok
    assert found.value == pytest.approx(-40, abs=0.5)


@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_a_microphone_that_gives_a_constant_fails(constant: float) -> None:
    found = check_microphone(Audio(microphone=""), lambda _: Source(block(np.full(20_000, constant))))
    assert not found.ok
    assert "digital silence" in str(found.hint)


def test_a_microphone_that_gives_nothing_fails() -> None:
    found = check_microphone(Audio(microphone=""), lambda _: Source(Gap("mic", 0, 8_000, "away")))
    assert (found.ok, found.hint) == (False, "the device gave no sound")


def test_a_microphone_that_is_not_there_fails() -> None:
    def refuse(_audio: Audio) -> Source:
        raise AudioError("expected USB, found none")

    found = check_microphone(Audio(microphone="USB"), refuse)
    assert (found.ok, found.hint) == (False, "expected USB, found none")


def test_the_configuration_asks_for_the_microphone(
    run: Run, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "check_microphone", lambda audio: Check("microphone", False, audio.microphone))
    (tmp_path / "c.toml").write_text('[audio]\nmicrophone = "USB"\n')
    code, found = run("--bundle", str(tiny.folder), "--config", "c.toml")
    assert (code, found["microphone"]["value"]) == (1, "USB")


def test_an_unset_clock_is_told_but_fails_nothing() -> None:
    class Clock:
        def now(self) -> Instant:
            return Instant("b", 0, None, "unset")

        def boottime_ns(self) -> int:
            return 0

    found = check_clock(Clock())
    assert (found.ok, found.value) == (True, "unset")
    assert "no UTC" in str(found.hint)


def test_a_watchlist_of_another_bundle_fails(run: Run, tiny: Bundle, tmp_path: Path) -> None:
    write_watchlist(tmp_path / "w.json", Watchlist("other", 256, "", ()))
    code, found = run("--bundle", str(tiny.folder), "--queries", "w.json")
    assert code == 1
    assert "found other" in found["queries"]["hint"]


def test_lines_for_people_end_with_a_verdict(
    tiny: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_board, "_free_bytes", lambda _: 0)
    assert check.main(["--bundle", str(tiny.folder), "--store", str(tmp_path / "s.sqlite")]) == 1
    out = capsys.readouterr().out
    assert f"FAIL  disk                0 MB (limit 500)  make room in {tmp_path}" in out
    assert "ok    licence             CC0-1.0" in out
    assert out.endswith("1 failed: not ready for the field\n")


def test_bad_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--config", "gone.toml"]) == 2
    assert capsys.readouterr().err.startswith("edge-check: error: gone.toml: expected a configuration file")
