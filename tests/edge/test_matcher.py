"""The alarm rule: the nearest wins, decoys compete, ties are settled the same way every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge.bundle import Calibration, Decoy
from edge.errors import CodeSpaceError, WatchlistError
from edge.matcher import Matcher
from edge.observation import Observation
from edge.watchlist import Query, Watchlist

Observe = Callable[..., Observation]

SPACE = "test-0123456789ab"
CALIBRATION = Calibration("logistic", -0.1, 7.0, 0, "test")  # one half at 70 bits


def code(n_ones: int, start: int = 0) -> bytes:
    """Return a code that lies n_ones bits from the code of zeros."""
    bits = np.zeros(256, np.uint8)
    bits[start : start + n_ones] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def matcher(*queries: Query, decoys: tuple[Decoy, ...] = ()) -> Matcher:
    return Matcher(Watchlist(SPACE, 256, "", queries), decoys, CALIBRATION)


def names(found: Matcher, observe: Observe) -> list[str]:
    return [detection.query for detection in found.match(observe(code(0), space=SPACE))]


def test_the_nearest_query_is_detected_with_its_distance_and_probability(observe: Observe) -> None:
    far, near = Query("far", "far away", code=code(60)), Query("near", "quite near", code=code(40))
    observation = observe(code(0), seq=7, space=SPACE)
    (detection,) = matcher(far, near).match(observation)
    assert (detection.query, detection.text, detection.distance) == ("near", "quite near", 40)
    assert detection.probability == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert (detection.device_id, detection.epoch, detection.seq) == ("dev", 1, 7)
    assert (detection.false_alarms_per_day, detection.clip) == (None, None)


@pytest.mark.parametrize(("n_bits", "expected"), [(70, ["only"]), (71, [])])
def test_a_probability_below_one_half_is_no_detection(
    n_bits: int, expected: list[str], observe: Observe
) -> None:
    assert names(matcher(Query("only", "only", code=code(n_bits))), observe) == expected


def test_a_query_may_set_its_own_probability(observe: Observe) -> None:
    assert names(matcher(Query("lax", "lax", min_probability=0.1, code=code(90))), observe) == ["lax"]
    assert names(matcher(Query("strict", "strict", min_probability=0.99, code=code(40))), observe) == []


def test_a_strict_query_that_is_nearest_hides_the_next_one(observe: Observe) -> None:
    strict = Query("strict", "strict", min_probability=0.99, code=code(40))
    assert names(matcher(strict, Query("other", "other", code=code(50))), observe) == []


@pytest.mark.parametrize("order", [1, -1])
def test_equal_distances_go_to_the_first_in_the_list(order: int, observe: Observe) -> None:
    queries = [Query("a", "a", code=code(40)), Query("b", "b", code=code(40, start=100))][::order]
    assert names(matcher(*queries), observe) == [queries[0].name]


def test_decoys_win_ties_and_never_alarm(observe: Observe) -> None:
    query = Query("query", "query", code=code(40))
    of_list = Query("wind", "wind", decoy=True, code=code(40, start=100))
    assert names(matcher(query, of_list), observe) == []
    assert names(matcher(query, decoys=(Decoy("rain", code(40, start=100)),)), observe) == []
    assert names(matcher(query, decoys=(Decoy("rain", code(41, start=100)),)), observe) == ["query"]


@pytest.mark.parametrize("text", ["Rain", " rain ", "RAIN.", "rain"])
def test_a_query_takes_the_place_of_the_decoy_with_its_sentence(text: str, observe: Observe) -> None:
    decoys = (Decoy("rain", code(40, start=100)),)
    assert names(matcher(Query("wet", text, code=code(40)), decoys=decoys), observe) == ["wet"]
    assert names(matcher(Query("wet", "heavy rain", code=code(40)), decoys=decoys), observe) == []


@pytest.mark.parametrize(("n_apart", "expected"), [(38, ["wet"]), (39, [])])
def test_a_decoy_that_means_the_same_as_a_query_is_left_out(
    n_apart: int, expected: list[str], observe: Observe
) -> None:
    query = Query("wet", "it pours", code=code(60))
    decoys = (Decoy("rain", code(60 - n_apart)),)  # nearer to the sound than the query
    assert names(matcher(query, decoys=decoys), observe) == expected


def test_a_decoy_line_does_not_remove_the_decoy(observe: Observe) -> None:
    queries = (Query("q", "query", code=code(45)), Query("rain", "rain", decoy=True, code=code(90)))
    assert names(matcher(*queries, decoys=(Decoy("rain", code(40, start=100)),)), observe) == []


def test_nearest_gives_queries_and_decoys_in_order_of_distance(observe: Observe) -> None:
    found = matcher(
        Query("b", "b", code=code(50)),
        Query("a", "a", code=code(30)),
        decoys=(Decoy("rain", code(40, start=100)),),
    )
    near = found.nearest(observe(code(0), space=SPACE), 3)
    assert [(each.query.name, each.distance) for each in near] == [("a", 30), ("decoy: rain", 40), ("b", 50)]
    assert [each.query.decoy for each in near] == [False, True, False]


def test_another_code_space_is_refused(observe: Observe) -> None:
    with pytest.raises(CodeSpaceError, match=f"expected code space {SPACE}, found other"):
        matcher(Query("q", "q", code=code(0))).match(observe(code(0), space="other"))


def test_a_list_of_decoys_alone_is_refused() -> None:
    with pytest.raises(WatchlistError, match="at least one query that is no decoy"):
        matcher(Query("d", "d", decoy=True, code=code(0)))


def test_decoys_of_another_width_are_refused() -> None:
    with pytest.raises(CodeSpaceError, match="expected codes of 256 bits"):
        matcher(Query("q", "q", code=code(0)), decoys=(Decoy("short", bytes(8)),))


def test_the_distance_of_opposite_codes_is_256(observe: Observe) -> None:
    near = matcher(Query("q", "q", code=code(256))).nearest(observe(code(0), space=SPACE))
    assert near[0].distance == 256
