from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.bundle import Bundle, default_bundle
from edge.codes import hamming, pack
from edge.encoder import (
    encode_file,
    encode_picture,
    open_audio_encoder,
    open_image_encoder,
    open_text_encoder,
)
from edge.errors import AudioError, BundleError, HubError, ImageError, UsageError
from edge.reference import Reference, load_reference
from hub.archive import Filter
from hub.archive_sqlite import SqliteArchive
from hub.refusal import UnknownError
from hub.search import Searcher, notes_of
from tests.simulate.archive_blocks import FIRST_WALL_NS, block_of

ROOT = Path(__file__).parents[2]
FOREST = ROOT / "examples" / "forest_minute.ogg"
HOUR_NS = 3600 * 10**9
EVERYTHING = Filter()


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return Bundle.load(default_bundle())


@pytest.fixture(scope="module")
def reference(starter: Bundle) -> Reference:
    found = load_reference(starter)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def archive(
    starter: Bundle, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SqliteArchive]:
    """Return an archive of known sounds, a window every 5 s, and some of another bundle."""
    opened = SqliteArchive.open(tmp_path_factory.mktemp("search") / "archive.sqlite")
    codes = reference.sounds[:1000]
    walls = FIRST_WALL_NS + np.arange(len(codes)) * 5 * 10**9
    space = starter.manifest.code_space
    opened.add(
        [block_of(100, 1, 0, codes, walls, space), block_of(5000, 1, 9, codes[:7], walls[:7], "old-1")]
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def searcher(archive: SqliteArchive, starter: Bundle) -> Searcher:
    return Searcher(archive, starter)


def test_a_sentence_finds_what_its_code_is_nearest_to(
    searcher: Searcher, starter: Bundle, reference: Reference
) -> None:
    question = searcher.text("  a dog \n barking ")
    code = pack(open_text_encoder(starter).encode("a dog barking"))
    assert np.array_equal(question.code, code)
    (answer,) = searcher.search([question], 10, EVERYTHING)
    distances = hamming(code, reference.sounds[:1000])
    best = np.lexsort((np.arange(1000), distances))[:10]
    assert [(hit.uid, hit.distance) for hit in answer.hits] == [
        (100 + i, distances[i]) for i in best.tolist()
    ]
    assert searcher.probability(question, 60) > 0.9 > 0.1 > searcher.probability(question, 120)


def test_a_sentence_is_encoded_once(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searcher.text("rain on leaves")
    monkeypatch.setattr("edge.encoder.TextEncoder.encode", None)
    assert searcher.text("rain  on leaves") is first


def test_an_example_sound_asks_what_its_windows_sound_like(searcher: Searcher, starter: Bundle) -> None:
    question = searcher.sound(FOREST.read_bytes())
    assert np.array_equal(question.code, pack(encode_file(open_audio_encoder(starter), FOREST)))
    with pytest.raises(AudioError, match="^example: expected a recording"):
        searcher.sound(b"no sound at all")


def test_an_example_picture_asks_what_it_looks_like(archive: SqliteArchive, tmp_path: Path) -> None:
    bundle = Bundle.load(ROOT / "tests" / "data" / "tiny_image_bundle")
    searcher, content = Searcher(archive, bundle), io.BytesIO()
    Image.new("RGB", (40, 24), (200, 90, 90)).save(content, "JPEG")
    path = tmp_path / "red.jpg"
    path.write_bytes(content.getvalue())
    code = pack(encode_picture(open_image_encoder(bundle), path))
    assert np.array_equal(searcher.picture(content.getvalue()).code, code)
    with pytest.raises(ImageError, match="^example: expected a picture"):
        searcher.picture(b"no picture")
    with pytest.raises(UsageError, match="per_day: expected a bundle with a reference"):
        searcher.search([searcher.picture(content.getvalue())], 5, EVERYTHING, per_day=1.0)


def test_a_bundle_says_what_it_cannot_encode(searcher: Searcher) -> None:
    with pytest.raises(BundleError, match="expected a image encoder"):
        searcher.picture(b"any")


def test_what_is_like_an_observation(searcher: Searcher, reference: Reference) -> None:
    question = searcher.like(107)
    (answer,) = searcher.search([question], 3, EVERYTHING)
    assert (answer.hits[0].uid, answer.hits[0].distance) == (107, 0)
    with pytest.raises(UnknownError, match="found 99"):
        searcher.like(99)


@pytest.mark.parametrize("per_day", [200.0, 1000.0])
def test_all_within_a_rate_of_false_alarms(searcher: Searcher, reference: Reference, per_day: float) -> None:
    """At these rates the background was counted, so that the limit can be checked without the model of its tail."""
    question = searcher.text("a dog barking")
    (answer,) = searcher.search([question], 1000, EVERYTHING, per_day)
    limit = answer.max_distance
    assert limit is not None
    near = hamming(question.code, reference.background)
    wpd = searcher.windows_per_day
    assert wpd is not None
    assert (near <= limit).mean() * wpd <= per_day < (near <= limit + 1).mean() * wpd
    expected = hamming(question.code, reference.sounds[:1000]) <= limit
    assert sorted(hit.uid - 100 for hit in answer.hits) == np.flatnonzero(expected).tolist()
    assert answer.is_whole
    found = searcher.per_day(question, limit)
    assert found == pytest.approx((near <= limit).mean() * wpd)


def test_a_rarer_rate_is_a_smaller_distance(searcher: Searcher) -> None:
    question = searcher.text("a dog barking")
    limits = [searcher.max_distance(question, per_day) for per_day in (0.01, 1.0, 100.0)]
    assert limits == sorted(set(limits))


def test_says_when_there_is_more_within_the_rate(searcher: Searcher, archive: SqliteArchive) -> None:
    questions = [searcher.text("a dog barking")]
    (answer,) = searcher.search(questions, 5, EVERYTHING, 1000.0)
    assert (len(answer.hits), answer.is_whole) == (5, False)
    assert notes_of(archive.counts(), searcher.code_space, [answer]) == [
        "7 observations of other code spaces were not searched.",
        "There is more within the distance: ask for more results, or narrow the filters.",
    ]
    (answer,) = searcher.search(questions, 5, EVERYTHING)
    assert len(notes_of(archive.counts(), searcher.code_space, [answer])) == 1


def test_a_batch_answers_each_question_as_alone(searcher: Searcher) -> None:
    questions = [searcher.text("rain on leaves"), searcher.like(110), searcher.code(b"\x55" * 8, "prefix")]
    together = searcher.search(questions, 20, EVERYTHING)
    for question, answer in zip(questions, together, strict=True):
        (alone,) = searcher.search([question], 20, EVERYTHING)
        assert (answer.question, answer.hits) == (question, alone.hits)


def test_a_first_pass_over_a_prefix_is_ranked_by_the_whole_code(searcher: Searcher) -> None:
    """The archive is smaller than what the first pass keeps, so that nothing can be missed."""
    questions = [searcher.text("rain on leaves"), searcher.text("a dog barking")]
    for per_day in (None, 300.0):
        exact = searcher.search(questions, 30, EVERYTHING, per_day)
        coarse = searcher.search(questions, 30, EVERYTHING, per_day, prefix_bits=64)
        assert [each.hits for each in coarse] == [each.hits for each in exact]
    with pytest.raises(UsageError, match="prefix_bits"):
        searcher.search(questions, 30, EVERYTHING, prefix_bits=100)


def test_hours_are_those_of_the_asked_clock(searcher: Searcher) -> None:
    question = searcher.text("rain on leaves")
    for offset_s in (0, 5 * 3600 + 1800):
        where = Filter(since_ns=FIRST_WALL_NS, until_ns=FIRST_WALL_NS + HOUR_NS, utc_offset_s=offset_s)
        first = (FIRST_WALL_NS // 10**9 + offset_s) // 3600
        hours = searcher.hours(question, where, 256)
        assert sum(hours.values()) == 720
        assert list(hours) == [first, first + 1]
        assert hours[first] == 720 - ((FIRST_WALL_NS // 10**9 + offset_s) % 3600) // 5


def test_questions_that_cannot_be_asked_are_refused(searcher: Searcher, archive: SqliteArchive) -> None:
    for ask in (
        lambda: searcher.text("  "),
        lambda: searcher.text("x" * 1001),
        lambda: searcher.code(b"\0" * 5, "odd"),
        lambda: searcher.search([], 5, EVERYTHING),
        lambda: searcher.search([searcher.like(110)] * 65, 5, EVERYTHING),
        lambda: searcher.search([searcher.like(110)], 0, EVERYTHING),
        lambda: searcher.search([searcher.like(110)], 1001, EVERYTHING),
        lambda: searcher.search([searcher.like(110)], 5, EVERYTHING, 0.0),
        lambda: searcher.search([searcher.code(b"\0" * 8, "prefix")], 5, EVERYTHING, 1.0),
    ):
        with pytest.raises(UsageError, match=r"expected .* found"):
            ask()
    with pytest.raises(HubError, match="expected a bundle at the hub"):
        Searcher(archive, None).text("anything")
