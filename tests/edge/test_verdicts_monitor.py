"""Feedback: verdicts change a query's own probability at the next start of edge-monitor, and nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge import monitor
from edge.bundle import Bundle, Calibration, Decoy
from edge.calibration import probability
from edge.matcher import Matcher
from edge.monitor_feedback import fitted_calibrations
from edge.observation import Observation
from edge.precision import fit_logistic
from edge.store_verdicts import VerdictStore, verdicts_path
from edge.verdict import Verdict
from edge.watchlist import Query, Watchlist, write_watchlist

Observe = Callable[..., Observation]

SPACE = "test-0123456789ab"
PRIOR = Calibration("logistic", -0.1, 7.0, 0, "test")
NEAR, FAR = bytes(32), bytes([255] * 5) + bytes(27)  # 0 and 40 bits from an observation of zeros
LIST = Watchlist(
    SPACE, 256, "", (Query("owl", "an owl", code=FAR), Query("noise", "noise", decoy=True, code=FAR))
)


def verdicts(n_right: int = 12, n_wrong: int = 12, **change: str) -> list[Verdict]:
    """Return verdicts on detections of the owl: 70 bits and less are right."""
    fields = {"query": "owl", "text": "an owl", "code_space": SPACE, **change}
    common = {"probability": 0.9, "given_ns": 0, **fields}
    right = [Verdict("dev", 1, i, distance=70 - i, answer="right", **common) for i in range(n_right)]  # type: ignore[arg-type]
    wrong = [Verdict("dev", 1, 100 + i, distance=71 + i, answer="wrong", **common) for i in range(n_wrong)]  # type: ignore[arg-type]
    return right + wrong


def keep(store: Path, given: list[Verdict]) -> Path:
    with VerdictStore.open(store) as kept:
        kept.keep(given)
    return store


def test_a_query_with_its_own_calibration_has_its_own_probability(observe: Observe) -> None:
    own = Calibration("logistic", -0.2, 9.0, 24, "verdicts")
    queries = (Query("owl", "an owl", code=FAR), Query("rain", "rain", code=NEAR))
    matcher = Matcher(Watchlist(SPACE, 256, "", queries), (), PRIOR, calibrations={"owl": own})
    near, far = matcher.nearest(observe(NEAR, space=SPACE), 2)
    assert (near.query.name, near.probability) == ("rain", probability(PRIOR, 0))
    assert (far.query.name, far.probability) == ("owl", probability(own, 40))


def test_a_query_that_verdicts_say_is_mostly_wrong_alarms_no_more(observe: Observe) -> None:
    alone = Watchlist(SPACE, 256, "", LIST.queries[:1])
    never = Calibration("logistic", -0.1, 3.0, 24, "verdicts")
    assert [d.probability for d in Matcher(alone, (), PRIOR).match(observe(NEAR, space=SPACE))] == [
        probability(PRIOR, 40)
    ]
    assert Matcher(alone, (), PRIOR, calibrations={"owl": never}).match(observe(NEAR, space=SPACE)) == []


def test_a_decoy_keeps_the_bundles_probability(observe: Observe) -> None:
    own = Calibration("logistic", -0.2, 9.0, 24, "verdicts")
    decoy = Decoy("wind", NEAR)
    matcher = Matcher(LIST, (decoy,), PRIOR, calibrations={"decoy: wind": own, "noise": own})
    found = {near.query.name: near.probability for near in matcher.nearest(observe(NEAR, space=SPACE), 3)}
    assert found["decoy: wind"] == probability(PRIOR, 0)
    assert found["noise"] == probability(PRIOR, 40)


def test_verdicts_enough_are_a_calibration_around_the_bundles(tmp_path: Path) -> None:
    given = verdicts()
    found = fitted_calibrations(LIST, PRIOR, keep(tmp_path / "a.sqlite", given))
    assert list(found) == ["owl"]
    is_right = [each.answer == "right" for each in given]
    expected = fit_logistic([each.distance for each in given], is_right, PRIOR)
    assert (found["owl"].coefficient, found["owl"].intercept) == pytest.approx(expected, rel=1e-9)
    assert found["owl"].n_pairs == 24


@pytest.mark.parametrize(
    "given",
    [
        verdicts(n_wrong=9),
        verdicts(text="another sentence"),
        verdicts(code_space="test-ffffffffffff"),
        verdicts(query="fox"),
        verdicts(query="noise", text="noise"),
        [],
    ],
    ids=["too few", "another sentence", "another code space", "not asked", "a decoy", "none"],
)
def test_other_verdicts_leave_the_bundles(tmp_path: Path, given: list[Verdict]) -> None:
    assert fitted_calibrations(LIST, PRIOR, keep(tmp_path / "a.sqlite", given)) == {}


def test_without_a_store_or_verdicts_there_is_nothing(tmp_path: Path) -> None:
    assert fitted_calibrations(LIST, PRIOR, None) == {}
    assert fitted_calibrations(LIST, PRIOR, tmp_path / "a.sqlite") == {}
    assert list(tmp_path.iterdir()) == []


def test_damaged_verdicts_do_not_stop_a_recorder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    verdicts_path(tmp_path / "a.sqlite").write_bytes(b"no database " * 500)
    with caplog.at_level(logging.WARNING):
        assert fitted_calibrations(LIST, PRIOR, tmp_path / "a.sqlite") == {}
    assert "a-verdicts.sqlite: expected verdicts" in caplog.text


def test_edge_monitor_uses_them_at_its_next_start(
    tiny: Bundle,
    watchlist: Watchlist,
    write_tones: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_watchlist(tmp_path / "watchlist.json", watchlist)
    write_tones(Path("a.wav"), (0, 2), (500, 3))
    run = ["--queries", "watchlist.json", "--bundle", str(tiny.folder), "--input", "a.wav", "--json"]

    def detections(*more: str) -> list[tuple[int, float]]:
        assert monitor.main([*run, *more]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(line["distance"], line["probability"]) for line in lines if line["type"] == "detection"]

    prior = tiny.manifest.calibration
    assert prior is not None
    before = detections()
    assert before
    assert before == [(bits, probability(prior, bits)) for bits, _ in before]
    given = verdicts(query="low", text="a low tone", code_space=watchlist.code_space)
    keep(Path("fieldcube.sqlite"), [replace(each, distance=each.distance // 2) for each in given])
    own = fitted_calibrations(watchlist, prior, Path("fieldcube.sqlite"))["low"]
    after = detections()
    assert after
    assert after == [(bits, probability(own, bits)) for bits, _ in after]
    assert after != before
    assert detections("--no-store") == before
