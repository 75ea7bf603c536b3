"""A site's own background: what decides before it is known, what is learnt, and within which bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.background import (
    DRIFT_BITS,
    EVENT_BITS,
    EVENT_EXCESS,
    LEAST_PER_DAY,
    MAX_CORRECTION,
    MEMORY_S,
    MIN_WINDOWS,
    NEIGHBOURS,
    PRIOR_CAUTION,
    PRIOR_MARGIN_BITS,
    Background,
)
from edge.false_alarms import Threshold, tail_of

HOP_S = 60.0  # 1440 windows a day, ten a step
N_BINS = 257
ALL = np.ones(1, bool)


def quiet(n: int, mean: float = 110.0, seed: int = 0, sd: float = 7.0) -> np.ndarray:
    """Return distances [n, 1] of windows without the sound."""
    return np.rint(np.random.default_rng(seed).normal(mean, sd, (n, 1))).astype(np.int64)


def histogram(distances: np.ndarray) -> np.ndarray:
    return np.bincount(distances[:, 0], minlength=N_BINS)[None].astype(np.float64)


def begin(wanted: float = 10.0, prior: np.ndarray | None = None) -> Background:
    return Background.begin([wanted], np.zeros((1, N_BINS)) if prior is None else prior, HOP_S)


def listen(background: Background, distances: np.ndarray) -> np.ndarray:
    """Let a background hear windows step by step; returns which were within the limit, [n_windows]."""
    passed = []
    for first in range(0, len(distances), background.step_windows):
        step = distances[first : first + background.step_windows]
        limits = background.limits(background.thresholds())
        passed.append(step[:, 0] <= limits[0])
        background.observe(step, limits)
    return np.concatenate(passed)


def bits(background: Background) -> float:
    (threshold,) = background.thresholds()
    return threshold.distance + threshold.share


def test_the_prior_decides_while_the_site_is_unknown_and_cautiously() -> None:
    prior = histogram(quiet(20_000))
    background = begin(50.0, prior)
    rarer = tail_of(prior[0]).threshold(50.0 / PRIOR_CAUTION / background.windows_per_day)
    assert background.thresholds() == [Threshold(rarer.distance - PRIOR_MARGIN_BITS, 0.0)]
    assert begin(10.0, prior).thresholds()[0].distance < rarer.distance - PRIOR_MARGIN_BITS


def test_a_first_hour_on_a_nearer_site_is_no_flood() -> None:
    background = begin(50.0, histogram(quiet(20_000)))
    site = quiet(240, mean=104.0, seed=3)  # every window is 6 bits nearer
    passed = listen(background, site)
    plain = tail_of(background.prior[0]).threshold(50.0 / 1440).distance
    assert passed.sum() <= 15  # in four hours, where 8 were wanted ...
    assert np.sum(site <= plain) > 25  # ... and the prior alone lets through


def test_a_query_of_which_nothing_is_known_does_not_alarm() -> None:
    background = begin()
    assert background.limits(background.thresholds()).tolist() == [-1]
    assert background.per_day(0, 0) is None


def test_the_site_takes_over_when_enough_of_it_was_heard() -> None:
    background = begin(50.0, histogram(quiet(20_000)))
    before = bits(background)
    background.learn(quiet(int(MIN_WINDOWS) - 1, mean=140.0), ALL)
    assert bits(background) == before
    background.learn(quiet(1, mean=140.0), ALL)
    assert bits(background) > before + 20


def test_a_site_that_was_heard_alarms_as_often_as_wanted() -> None:
    background = begin(20.0)
    background.learn(quiet(20_000), ALL)
    passed = listen(background, quiet(14_400, seed=1))
    assert 100 <= passed.sum() <= 400  # 200 wanted in ten days


def test_windows_of_long_ago_fade() -> None:
    background = begin()
    listen(background, quiet(14_400))
    memory = MEMORY_S / HOP_S
    assert background.counts.sum() == pytest.approx(memory, rel=0.02)
    old = background.counts.sum()
    background.observe(np.full((int(memory), 1), 200), np.array([-1]))
    assert background.counts[0, :200].sum() == pytest.approx(old / math.e, rel=0.02)


def test_a_change_of_weather_is_followed() -> None:
    background = begin(50.0)
    listen(background, quiet(14_400, mean=90.0))
    listen(background, quiet(5 * 1440, mean=130.0, seed=1))
    assert bits(background) == pytest.approx(
        tail_of(histogram(quiet(20_000, mean=130.0))[0]).threshold(50 / 1440).distance, abs=4
    )


def test_the_sound_itself_is_not_learnt_as_background() -> None:
    learnt, heard = begin(20.0), begin(20.0)
    for each in (learnt, heard):
        each.learn(quiet(20_000), ALL)
    (limit,) = learnt.limits(learnt.thresholds())
    step = np.maximum(quiet(10, seed=2), limit + 1)
    limits = np.array([limit])
    learnt.observe(step, limits)
    with_events = step.copy()
    with_events[2:5] = limit - EVENT_BITS
    with_events[[1, 5]] = limit + 1  # parts of the sound are in the windows beside it
    heard.observe(with_events, limits)
    assert heard.counts[0, : limit - 3].sum() == learnt.counts[0, : limit - 3].sum()
    assert learnt.counts.sum() - heard.counts.sum() == pytest.approx(3 + 2 * NEIGHBOURS)
    assert heard.correction[0] == learnt.correction[0]


def test_the_sound_itself_does_not_tighten_the_threshold() -> None:
    background = begin(20.0)
    background.learn(quiet(20_000), ALL)
    (limit,) = background.limits(background.thresholds())
    background.observe(np.full((10, 1), limit - EVENT_BITS), np.array([limit]))
    assert background.correction[0] > 0
    background.observe(np.full((10, 1), limit - EVENT_BITS + 1), np.array([limit]))
    assert background.correction[0] < 0


@pytest.mark.parametrize("times_a_day", [40, 400, 1200])
@pytest.mark.parametrize("stored", [False, True])
def test_a_sound_that_is_common_at_a_site_does_not_hide_itself(times_a_day: int, stored: bool) -> None:
    random = np.random.default_rng(3)
    heard = quiet(5 * 1440, seed=1)
    for each in range(5):
        first = 1440 * each + random.choice(1438, times_a_day)
        heard[first + 1, 0] = random.normal(45, 6, times_a_day)
        heard[first, 0] = np.minimum(heard[first, 0], random.normal(80, 6, times_a_day))
    background = begin(2.0, histogram(quiet(20_000)))
    alone = bits(background) + PRIOR_MARGIN_BITS
    if stored:
        background.learn(heard, ALL)
    else:
        listen(background, heard)
    limit = bits(background)
    assert limit >= alone - DRIFT_BITS - 3
    assert (heard[(heard < 70)] <= limit).mean() > 0.97


def test_the_bound_on_events_is_of_a_day() -> None:
    background = begin(20.0)
    background.learn(quiet(20_000), ALL)
    background.events_today[:] = EVENT_EXCESS * 20  # no more of them today
    event = np.array([[0]])
    background.observe(event, np.array([100]))
    assert background.counts[0, 0] == 1
    background.observe(quiet(1440, seed=3), np.array([-1]))
    background.observe(event, np.array([100]))
    assert background.counts[0, 0] < 1


def test_fractions_of_thresholds_do_not_open_all_lines_at_once() -> None:
    background = Background.begin([1.0] * 4, np.zeros((4, N_BINS)), HOP_S)
    steps = []
    for number in range(100):
        background.n_windows = number * background.step_windows
        steps.append(background.limits([Threshold(50, 0.5)] * 4) - 50)
    opened = np.stack(steps)
    assert opened.mean(axis=0) == pytest.approx([0.5] * 4, abs=0.05)
    assert (opened.min(axis=1) != opened.max(axis=1)).mean() > 0.2


def test_what_was_let_through_is_told_as_a_rate_with_its_interval() -> None:
    background = begin(20.0)
    background.learn(quiet(20_000), ALL)
    assert background.achieved_per_day(0) is None
    (limit,) = background.limits(background.thresholds())
    step = np.maximum(quiet(1440, seed=2), limit + 1)
    step[:30:3], step[100] = limit, limit - EVENT_BITS  # ten false alarms and the sound itself
    background.observe(step, np.array([limit]))
    rate, low, high = background.achieved_per_day(0) or (0.0, 0.0, 0.0)
    assert rate == 10
    assert (low, high) == (pytest.approx(4.8, abs=0.05), pytest.approx(18.4, abs=0.05))  # Garwood's


def test_without_prior_a_sound_now_and_then_does_not_hide_itself() -> None:
    heard = quiet(5 * 1440, seed=1)
    clean, background = begin(2.0), begin(2.0)
    clean.learn(heard, ALL)
    heard[::100] = np.random.default_rng(0).normal(45, 6, heard[::100].shape)
    background.learn(heard, ALL)
    assert bits(background) == pytest.approx(bits(clean), abs=3)


def test_a_line_of_which_no_background_is_known_learns_what_is_near() -> None:
    background = begin(2.0)
    background.learn(np.random.default_rng(0).integers(40, 60, (1440, 1)), ALL)
    assert bits(background) < 40


@pytest.mark.parametrize("scale", [1, 5])
def test_margins_are_in_bits_of_distance(scale: int) -> None:
    prior = histogram(quiet(20_000))
    background = Background.begin([20.0], prior, HOP_S, [scale])
    cautious = tail_of(prior[0]).threshold(20.0 / PRIOR_CAUTION / 1440)
    assert background.thresholds()[0].distance == cautious.distance - PRIOR_MARGIN_BITS * scale
    background.learn(quiet(20_000), ALL)
    limits = np.array([100])
    background.observe(np.full((10, 1), 100 - EVENT_BITS * scale + 1), limits)
    assert background.events_today[0] == 0
    background.observe(np.full((10, 1), 100 - EVENT_BITS * scale), limits)
    assert background.events_today[0] == 10


def test_what_is_taken_for_the_sound_has_a_bound_a_day() -> None:
    background = begin(1.0)
    background.learn(quiet(20_000), ALL)
    passed = listen(background, quiet(1440, mean=70.0))  # rain has begun, and stays
    assert passed[:30].all()
    assert passed[200:].sum() <= 10
    assert bits(background) < 70
    assert background.events_today[0] <= EVENT_EXCESS + background.step_windows


def test_too_many_alarms_tighten_a_threshold_and_none_loosen_it_within_bounds() -> None:
    tight, loose = begin(20.0), begin(20.0)
    limit = 100
    for each in (tight, loose):
        each.learn(quiet(20_000), ALL)
    plain = bits(tight)
    for _ in range(2_000):
        tight.observe(np.full((10, 1), limit), np.array([limit]))
        loose.observe(np.full((10, 1), limit), np.array([limit - 1]))
    assert (tight.correction[0], loose.correction[0]) == (-MAX_CORRECTION, MAX_CORRECTION)
    for each, sign in ((tight, -1), (loose, 1)):
        each.counts[:] = histogram(quiet(20_000))
        wanted = 20.0 * math.exp(sign * MAX_CORRECTION) / each.windows_per_day
        assert each.thresholds() == [tail_of(each.counts[0]).threshold(wanted)]
    assert bits(tight) < plain < bits(loose)


def test_one_bit_more_alarms_in_its_share_of_the_time() -> None:
    background = begin()
    thresholds, found = [Threshold(90, 0.3)], []
    for _ in range(1_000):
        found.append(int(background.limits(thresholds)[0]))
        background.n_windows += background.step_windows
    assert set(found) == {90, 91}
    assert np.mean(found) == pytest.approx(90.3, abs=0.01)


def test_a_distance_says_how_often_the_background_is_as_near() -> None:
    background = begin()
    background.learn(quiet(20_000), ALL)
    for distance in (100, 110):
        expected = np.mean(quiet(20_000) <= distance) * 1440
        assert background.per_day(0, distance) == pytest.approx(expected)
    assert background.per_day(0, 0) == LEAST_PER_DAY


def test_a_recorder_that_is_off_for_a_hop_longer_than_a_step_still_has_steps() -> None:
    assert Background.begin([1.0], np.zeros((1, N_BINS)), 3_600.0).step_windows == 1
    assert begin().step_windows == 10
