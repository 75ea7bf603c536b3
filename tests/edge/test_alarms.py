"""The alarms of a watchlist: sentences as rows, and what was learnt, kept over restarts and for its own code space only."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import alarms as alarms_module
from edge.alarm_pauses import MAX_ALARMS_PER_HOUR
from edge.alarms import Alarms, sentences_of
from edge.alarms_learnt import read_learnt
from edge.bundle import Calibration
from edge.errors import CodeSpaceError, WatchlistError
from edge.matcher import Matcher
from edge.observation import Observation
from edge.reference import Reference
from edge.watchlist import Query, QueryPart, Watchlist

Observe = Callable[..., Observation]

SPACE = "test-0123456789ab"
HOP_S = 60.0
CALIBRATION = Calibration("logistic", -0.1, 7.0, 0, "test")  # one half at 70 bits
DOG, OWL, RAIN = (np.random.default_rng(seed).bytes(32) for _, seed in (("dog", 1), ("owl", 2), ("rain", 3)))


def near(code: bytes, n_bits: int) -> bytes:
    """Return a code that differs from another in its last n_bits."""
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    bits[len(bits) - n_bits :] ^= 1
    return np.packbits(bits).tobytes()


def quiet(n: int, seed: int = 0) -> np.ndarray:
    """Return codes [n, 32] that are 128 +- 8 bits from everything."""
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def of_two(combine: Any, confirm: tuple[int, int] = (1, 1)) -> Query:
    parts = (QueryPart("dog", DOG), QueryPart("owl", OWL))
    return Query("two", "two", code=DOG, combine=combine, parts=parts, confirm=confirm)


def listed(*queries: Query, space: str = SPACE) -> Watchlist:
    return Watchlist(space, 256, "", queries or (Query("dog", "a dog", code=DOG),))


def reference(background: np.ndarray | None = None) -> Reference:
    found, none = quiet(5_000) if background is None else background, np.zeros(0, np.int64)
    empty = np.zeros((0, 32), np.uint8)
    return Reference(found, np.zeros(len(found), np.int64), HOP_S, empty, none, none, np.zeros(0), (), empty)


def opened(watchlist: Watchlist | None = None, **options: Any) -> Alarms:
    return Alarms(watchlist or listed(), reference(), options.pop("hop_s", HOP_S), **options)


@pytest.fixture
def hear(observe: Observe) -> Callable[..., str | None]:
    """Return hear(alarms, code): the name of the query that alarms."""

    def one(alarms: Alarms, code: bytes, source: str = "a.wav", wall_ns: int | None = None) -> str | None:
        plain = observe(code, space=SPACE)
        heard = alarms.hear(replace(plain, source=source, instant=replace(plain.instant, wall_ns=wall_ns)))
        return None if heard is None else heard.query.name

    return one


def taught(alarms: Alarms, observe: Observe, seed: int = 5, n: int = 400) -> Alarms:
    for code in quiet(n, seed):
        alarms.hear(observe(code.tobytes(), space=SPACE))
    return alarms


def test_a_sound_alarms_with_its_distance_and_rate(observe: Observe) -> None:
    heard = opened().hear(observe(near(DOG, 40), space=SPACE))
    assert heard is not None
    assert (heard.query.name, heard.distance) == ("dog", 40)
    assert heard.per_day is not None
    assert heard.per_day < 2
    assert opened().hear(observe(quiet(1)[0].tobytes(), space=SPACE)) is None


def test_a_query_for_one_of_two_tells_the_distance_of_the_nearest_sentence(observe: Observe) -> None:
    heard = opened(listed(of_two("or"))).hear(observe(near(OWL, 40), space=SPACE))
    assert heard is not None
    assert (heard.query.name, heard.distance) == ("two", 40)


def test_a_query_for_both_is_as_sure_as_of_the_sound_that_is_farther(observe: Observe) -> None:
    dog, owl = (np.unpackbits(np.frombuffer(code, np.uint8)) for code in (DOG, OWL))
    apart = np.flatnonzero(dog != owl)
    dog[apart[:50]] = owl[apart[:50]]  # both in one window: 50 bits from the dog, the others from the owl
    both, far = np.packbits(dog).tobytes(), len(apart) - 50
    sentences = replace(of_two("and"), alarms_per_day=1000.0)
    watchlist = listed(sentences)
    (detection,) = Matcher(watchlist, (), CALIBRATION, opened(watchlist)).match(observe(both, space=SPACE))
    assert (detection.distance, far > 50) == (far, True)
    assert detection.probability == pytest.approx(1 / (1 + np.exp(0.1 * far - 7.0)))
    asked = listed(replace(sentences, min_probability=0.6))  # which the nearer one alone would have
    assert Matcher(asked, (), CALIBRATION, opened(asked)).match(observe(both, space=SPACE)) == []


def test_the_wanted_number_is_the_lines_own_or_the_recorders() -> None:
    lines = Query("dog", "a dog", code=DOG, alarms_per_day=0.5), Query("owl", "an owl", code=OWL)
    made = opened(listed(*lines), alarms_per_day=7.0)
    assert made.rule.background.wanted_per_day.tolist() == [0.5, 7.0]


def test_a_new_site_begins_with_the_bundles_background() -> None:
    assert opened().rule.limits[0] > 60
    bare = Alarms(listed(), reference(quiet(0)), HOP_S)
    assert bare.rule.limits.tolist() == [-1]


def test_a_decoy_line_competes_and_is_no_query(hear: Any) -> None:
    made = opened(
        listed(Query("dog", "a dog", code=DOG), Query("rain", "rain", decoy=True, code=near(DOG, 60)))
    )
    assert [query.name for query in made.queries] == ["dog"]
    assert hear(made, near(DOG, 29)) == "dog"
    assert hear(made, near(DOG, 30)) is None


def test_a_list_of_decoys_is_refused() -> None:
    with pytest.raises(WatchlistError, match="at least one query that is no decoy"):
        opened(listed(Query("rain", "rain", decoy=True, code=RAIN)))


def test_another_code_space_is_refused(observe: Observe) -> None:
    with pytest.raises(CodeSpaceError, match=f"expected code space {SPACE}, found other"):
        opened().hear(observe(DOG, space="other"))


def test_another_source_confirms_nothing(hear: Any) -> None:
    line = Query("dog", "a dog", code=DOG, confirm=(2, 2))
    made = opened(listed(line))
    assert [hear(made, near(DOG, 20), source) for source in ("a.wav", "b.wav", "b.wav")] == [
        None,
        None,
        "dog",
    ]


@pytest.mark.parametrize("lost_s", [60, 70 * 3600])
def test_a_sound_before_missing_sound_confirms_nothing(lost_s: int, observe: Observe) -> None:
    made = opened(listed(Query("dog", "a dog", code=DOG, confirm=(2, 2))))
    heard, at_samples = [], 0
    for step_s in (0, 60, 60 + lost_s, 60):
        at_samples += step_s * 8_000
        observation = replace(observe(near(DOG, 20), space=SPACE), first_sample=at_samples)
        heard.append(made.hear(observation) is not None)
    assert heard == [False, True, False, True]


@pytest.mark.parametrize(
    ("passed_s", "alarms"), [(3600, False), (12 * 3600 - 1, False), (12 * 3600, True), (-86_400, True)]
)
def test_a_cooldown_holds_over_a_restart(passed_s: int, alarms: bool, hear: Any, tmp_path: Path) -> None:
    line, noon_ns = Query("dog", "a dog", code=DOG, cooldown_s=12 * 3600.0), 1_777_900_000 * 10**9
    for name in ("dog", None):
        made = opened(listed(line))
        made.restore(tmp_path / "s.npz")
        assert hear(made, near(DOG, 20), wall_ns=noon_ns) == name
        made.save(tmp_path / "s.npz")
    made = opened(listed(line))
    assert made.restore(tmp_path / "s.npz") == []
    found = hear(made, near(DOG, 20), "b.wav", noon_ns + passed_s * 10**9)
    assert found == ("dog" if alarms else None)


def test_a_limit_holds_over_a_restart_of_its_own_line_only(hear: Any, tmp_path: Path) -> None:
    lines = [Query(name, "a dog", code=DOG, alarms_per_day=1000.0, active=name) for name in ("day", "night")]

    def is_day(query: Query, time: datetime | None) -> bool:
        return query.name == "day" and time is None

    made = opened(listed(*lines), hop_s=2.0, is_active=is_day)
    for _ in range(MAX_ALARMS_PER_HOUR + 20):
        hear(made, near(DOG, 20))
    made.save(tmp_path / "s.npz")
    again = opened(listed(*lines[::-1]), hop_s=2.0)
    assert again.restore(tmp_path / "s.npz") == []
    assert [again.rule.pauses.is_limited(row) for row in (0, 1)] == [False, made.rule.pauses.is_limited(0)]
    assert again.rule.pauses.in_hour[1] == pytest.approx(made.rule.pauses.in_hour[0]) != 0


def test_a_line_is_asked_for_in_its_hours_only(hear: Any) -> None:
    asked = []

    def is_active(query: Query, time: datetime | None) -> bool:
        asked.append((query.name, time))
        return time is None or query.active is None or time.hour < 6

    line = Query("dog", "a dog", code=DOG, active="00:00-06:00")
    made = opened(listed(line, Query("owl", "an owl", code=OWL)), is_active=is_active)
    noon = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
    noon_ns = round(noon.timestamp()) * 10**9
    assert hear(made, near(DOG, 20), wall_ns=noon_ns) is None
    assert hear(made, near(DOG, 20), wall_ns=noon_ns + 59 * 10**9) is None
    assert hear(made, near(OWL, 20), wall_ns=noon_ns) == "owl"
    assert asked == [("dog", noon), ("owl", noon)]  # once a minute
    assert hear(made, near(DOG, 20), wall_ns=noon_ns - 7 * 3600 * 10**9) == "dog"
    assert hear(made, near(DOG, 20), wall_ns=None) == "dog"


def test_lines_without_hours_ask_for_no_time(hear: Any) -> None:
    def is_active(query: Query, time: datetime | None) -> bool:
        raise AssertionError(query.name)

    assert hear(opened(is_active=is_active), near(DOG, 20), wall_ns=0) == "dog"


def test_a_limited_query_is_told_of_with_what_was_held_back(hear: Any) -> None:
    made = opened(listed(Query("dog", "a dog", code=DOG, alarms_per_day=1000.0)), hop_s=2.0)
    told = [hear(made, near(DOG, 20)) for _ in range(MAX_ALARMS_PER_HOUR + 40)]
    (limited,) = made.take_limited()
    assert (limited.query.name, limited.n_held_back) == ("dog", told.count(None))
    assert made.n_limited == told.count(None) > 10
    assert made.take_limited() == []


def test_an_alarm_that_probability_rejects_starts_no_cooldown(observe: Observe) -> None:
    line = Query("dog", "a dog", code=DOG, cooldown_s=3600.0, min_probability=0.9)
    watchlist = listed(line)
    matcher = Matcher(watchlist, (), CALIBRATION, opened(watchlist))
    assert matcher.match(observe(near(DOG, 60), space=SPACE)) == []  # 0.73 of 0.9
    (detection,) = matcher.match(observe(near(DOG, 40), space=SPACE))
    assert (detection.query, detection.distance) == ("dog", 40)
    assert detection.probability == pytest.approx(0.9526, abs=1e-4)
    assert matcher.match(observe(near(DOG, 40), space=SPACE)) == []  # now it has


def test_an_alarm_that_probability_rejects_counts_for_no_limit(observe: Observe) -> None:
    watchlist = listed(Query("dog", "a dog", code=DOG, alarms_per_day=1000.0, min_probability=0.9))
    made = opened(watchlist, hop_s=2.0)
    matcher = Matcher(watchlist, (), CALIBRATION, made)
    for _ in range(MAX_ALARMS_PER_HOUR + 10):
        assert matcher.match(observe(near(DOG, 60), space=SPACE)) == []
    assert made.n_limited == 0
    assert len(matcher.match(observe(near(DOG, 40), space=SPACE))) == 1


def test_without_probability_the_rate_alone_decides(observe: Observe) -> None:
    watchlist = listed()
    matcher = Matcher(watchlist, (), CALIBRATION, opened(watchlist))
    (detection,) = matcher.match(observe(near(DOG, 75), space=SPACE))
    assert detection.probability < 0.5
    assert detection.false_alarms_per_day is not None


@pytest.mark.parametrize(
    "line", [Query("dog", "a dog", code=DOG), of_two("and"), of_two("or"), of_two("or", (2, 3))]
)
def test_a_restart_goes_on_with_what_was_learnt(line: Query, observe: Observe, tmp_path: Path) -> None:
    before, after = taught(opened(listed(line)), observe), opened(listed(line))
    assert after.rule.limits.tolist() != before.rule.limits.tolist()
    before.save(tmp_path / "s.npz")
    assert after.restore(tmp_path / "s.npz") == []
    assert after.rule.limits.tolist() == before.rule.limits.tolist()
    assert np.array_equal(after.rule.background.correction, before.rule.background.correction)
    codes = before.distances(quiet(50, 9))
    runs = np.zeros(50, np.int64)
    assert np.array_equal(after.rule.bits(codes, runs), before.rule.bits(codes, runs))


@pytest.mark.parametrize(("wanted", "correction"), [(50.0, -0.7), (2.0, 0.0)])
def test_a_correction_is_of_the_rate_that_it_was_learnt_at(
    wanted: float, correction: float, observe: Observe, tmp_path: Path
) -> None:
    before, after = (opened(alarms_per_day=rate) for rate in (50.0, wanted))
    taught(before, observe)
    before.rule.background.correction[:] = -0.7
    before.save(tmp_path / "s.npz")
    assert after.restore(tmp_path / "s.npz") == []
    assert after.rule.background.correction.tolist() == [correction]
    assert np.allclose(after.rule.background.counts, before.rule.background.counts)


def test_the_same_sentence_under_another_name_and_place_is_known(observe: Observe, tmp_path: Path) -> None:
    taught(opened(), observe).save(tmp_path / "s.npz")
    lines = Query("owl", "an owl", code=OWL), Query("hound", "a hound", code=DOG)
    made = opened(listed(*lines))
    assert [query.name for query in made.restore(tmp_path / "s.npz")] == ["owl"]
    assert (made.rule.background.counts.sum(axis=1) > 0).tolist() == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        Query("dog", "a dog", code=near(DOG, 1)),
        Query("dog", "a dog", code=DOG, confirm=(2, 3)),
        of_two("and"),
    ],
)
def test_another_question_is_not_known(other: Query, observe: Observe, tmp_path: Path) -> None:
    taught(opened(), observe).save(tmp_path / "s.npz")
    assert opened(listed(other)).restore(tmp_path / "s.npz") == [other]


@pytest.mark.parametrize("change", ["space", "hop", "version"])
def test_what_was_learnt_elsewhere_is_passed_over_and_told(
    change: str, observe: Observe, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    taught(opened(), observe).save(tmp_path / "s.npz")
    if change == "version":
        monkeypatch.setattr(alarms_module, "STATE_VERSION", 99)
    space, hop_s = ("other", HOP_S) if change == "space" else (SPACE, 5.0 if change == "hop" else HOP_S)
    made = opened(listed(space=space), hop_s=hop_s)
    before = made.rule.limits.tolist()
    assert made.restore(tmp_path / "s.npz") == made.queries
    assert "learning anew" in caplog.text
    assert made.rule.limits.tolist() == before
    assert made.rule.background.counts.sum() == 0
    made.save(tmp_path / "s.npz")  # and its own takes the place
    assert opened(listed(space=space), hop_s=hop_s).restore(tmp_path / "s.npz") == []


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.9])
def test_a_damaged_state_is_passed_over_and_told(
    keep: float, observe: Observe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.npz"
    taught(opened(), observe).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(keep * len(whole)) if isinstance(keep, float) else keep])
    made = opened()
    assert made.restore(path) == made.queries
    assert "expected a learnt background, found" in caplog.text
    assert made.rule.background.counts.sum() == 0


def test_no_flipped_bit_stops_a_recorder(observe: Observe, tmp_path: Path) -> None:
    path, random = tmp_path / "s.npz", np.random.default_rng(0)
    taught(opened(listed(of_two("or"))), observe).save(path)
    whole, n_anew = path.read_bytes(), 0
    made = opened(listed(of_two("or")))
    method = whole.rfind(b"PK\x01\x02") + 10  # of compression, and before it the flag that says: encrypted
    flipped = [(8 * (method - 2), 1), *((8 * method + bit, 1) for bit in range(16))]
    flipped += [(int(bit), 1) for bit in random.integers(0, 8 * len(whole), 400)]
    flipped += [(int(bit), 40) for bit in random.integers(0, 8 * len(whole) - 400, 100)]
    for first, n in flipped:
        bits = np.unpackbits(np.frombuffer(whole, np.uint8), bitorder="little")
        bits[first : first + n] ^= 1
        path.write_bytes(np.packbits(bits, bitorder="little").tobytes())
        n_anew += bool(made.restore(path))
        read_learnt(path)  # nor who only reads it
    assert n_anew > 300  # a time or a name in the archive may change unseen


def test_a_damaged_state_is_kept_beside_the_new_one(observe: Observe, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    taught(opened(), observe).save(path)
    whole = bytearray(path.read_bytes())
    whole[whole.rfind(b"PK\x01\x02") + 10] ^= 0x40
    path.write_bytes(whole)
    made = opened()
    assert made.restore(path) == made.queries
    assert path.read_bytes() == whole  # only who writes moves it
    for _ in range(2):
        made.save(path)
        assert opened().restore(path) == []
        assert (tmp_path / "s.npz.corrupt").read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.full((1, 257), -1.0)},
        {"counts": np.zeros((1, 65))},
        {"counts": np.full((1, 257), np.nan)},
        {"correction": np.zeros(2)},
        {"quiet_s": np.full(1, -1.0)},
        {"in_hour": np.zeros(2)},
        {"wall_ns": np.asarray(-7)},
        {"lines": np.zeros(0, "U1"), "boottime_ns": np.asarray("x")},
        {"keys": np.zeros(0, "U16")},
        {"part_counts": np.zeros((3, 257))},
        {"counts": None},
    ],
)
def test_a_state_of_arrays_that_do_not_fit_is_passed_over(
    change: dict[str, Any], observe: Observe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.npz"
    taught(opened(), observe).save(path)
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    made = opened()
    assert made.restore(path) == made.queries
    assert "expected a learnt background" in caplog.text
    assert made.rule.background.counts.sum() == 0


def test_no_state_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = opened()
    assert made.restore(tmp_path / "s.npz") == made.queries
    assert caplog.records == []


def test_the_state_of_200_queries_stays_under_a_megabyte() -> None:
    codes = quiet(500, 8)
    lines = [Query(f"{n}", f"{n}", code=codes[n].tobytes()) for n in range(100)]
    for n in range(100, 200):
        parts = tuple(QueryPart(f"{n}", codes[n + extra].tobytes()) for extra in (0, 100, 200, 300))
        lines.append(Query(f"{n}", f"{n}", code=parts[0].code, combine="or", parts=parts))
    made = opened(listed(*lines))
    random = np.random.default_rng(0)
    for background in (made.rule.background, made.rule.parts):  # nothing that could be compressed
        background.counts[:] = random.random(background.counts.shape)
    assert len(made.state()) < 1_000_000


def test_a_full_disk_costs_the_state_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(alarms_module, "write_file", full)
    with caplog.at_level(logging.WARNING):
        opened().save(tmp_path / "s.npz")
    assert "the learnt background could not be written" in caplog.text


def test_a_new_query_learns_from_what_is_stored(observe: Observe) -> None:
    dog, owl = Query("dog", "a dog", code=DOG), Query("owl", "an owl", code=OWL)
    made = opened(listed(dog, owl))
    before = made.rule.limits.copy()
    nearer = [near(OWL, before[1] - n % 9) for n in range(500)]  # what sounds like owls all day at this site
    stored = [observe(code, space=SPACE) for code in nearer] + [observe(DOG, space="other")]
    assert made.learn(stored, [owl]) == 500
    assert made.rule.limits[0] == before[0]
    assert made.rule.limits[1] < before[1] - 9
    limits = made.rule.limits.copy()
    made.learn([observe(near(OWL, 50 + n % 9), space=SPACE) for n in range(500)], [owl])  # owls, all day
    assert made.rule.limits[1] == limits[1]


def test_stored_windows_of_two_recordings_do_not_confirm_each_other(observe: Observe) -> None:
    line = Query("dog", "a dog", code=DOG, confirm=(2, 2))
    made = opened(listed(line))
    bits = int(made.rule.background.sure[0]) + 1
    stored = [replace(observe(near(DOG, bits), space=SPACE), source=f"{n}.wav") for n in range(50)]
    made.learn(stored, [line])
    assert made.rule.background.counts[0, 256] == 50
    made.learn([observe(near(DOG, bits), space=SPACE)] * 50, [line])
    assert made.rule.background.counts[0, bits] == 49


def test_digital_silence_does_not_become_what_the_site_sounds_like(observe: Observe) -> None:
    made = opened()
    for code in quiet(2_000, seed=5):
        made.hear(observe(code.tobytes(), space=SPACE))
    made.rule.settle()
    before = made.rule.background.counts.sum()
    for _ in range(500):
        made.hear(observe(near(bytes(32), 7), space=SPACE))
    made.rule.settle()
    assert made.rule.background.counts.sum() <= before + len(made.queries)


def test_nothing_stored_teaches_nothing() -> None:
    made = opened()
    assert made.learn([], made.queries) == 0
    assert made.rule.background.counts.sum() == 0


def test_sentences_are_the_parts_or_the_query_itself() -> None:
    assert sentences_of(of_two("and")) == [DOG, OWL]
    assert sentences_of(Query("dog", "a dog", code=DOG)) == [DOG]
