"""What people ask of the whole archive: a sentence, an example, or many at once. JSON, below /api."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from edge.errors import UsageError
from hub.answers import iso_ns
from hub.app import read_body
from hub.archive import Filter
from hub.asked import devices_of, hours_of, time_ns
from hub.parts import Hub, hub_of
from hub.search import Answer, Question, Searcher, notes_of

router = APIRouter(prefix="/api", tags=["search"])

_FARTHEST_ZONE_S = 15 * 3600
_BODY = {
    "requestBody": {
        "description": "A recording (audio/*), a picture (image/*), or a batch as JSON",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "queries": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "description": "one of text, uid (what is like it) and code (hexadecimal)",
                                "properties": {
                                    "text": {"type": "string"},
                                    "uid": {"type": "integer"},
                                    "code": {"type": "string"},
                                },
                            },
                        }
                    },
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search asks for beside the question."""

    where: Filter
    top: int
    per_day: float | None
    prefix_bits: int | None


def where_of(
    request: Request,
    since: Annotated[str, Query(description="ISO 8601, UTC where no zone is given")] = "",
    until: Annotated[str, Query(description="exclusive")] = "",
    hours: Annotated[str, Query(description="hours of the day, as 20,21,22")] = "",
    offset_s: Annotated[int, Query(description="of the clock that tells the hours, ahead of UTC")] = 0,
    device: Annotated[
        list[str] | None, Query(description="name of a recorder; may come more than once")
    ] = None,
    box: Annotated[str, Query(description="south,west,north,east in degrees")] = "",
) -> Filter:
    """Return which observations a request asks for. Raises UsageError, UnknownError."""
    if abs(offset_s) > _FARTHEST_ZONE_S:
        raise UsageError(f"offset_s: expected up to {_FARTHEST_ZONE_S} s, found {offset_s}")
    return Filter(
        devices_of(hub_of(request).registry, device or (), box),
        time_ns("since", since) if since else None,
        time_ns("until", until) if until else None,
        hours_of(hours) if hours else None,
        offset_s,
    )


def wanted(
    where: Annotated[Filter, Depends(where_of)],
    top: Annotated[int, Query(description="results of each question, at most")] = 20,
    per_day: Annotated[
        float | None,
        Query(description="all that the background reaches at most so often a day at a recorder"),
    ] = None,
    prefix_bits: Annotated[
        int | None,
        Query(
            description="a first pass over 64, 128 or 192 bits: for ClickHouse larger than memory; may miss some"
        ),
    ] = None,
) -> Wanted:
    """Return what a search asks for."""
    return Wanted(where, top, per_day, prefix_bits)


def searcher_of(request: Request) -> Searcher:
    """Return the one searcher of the application, made when it is first asked for."""
    state = request.app.state
    if not hasattr(state, "searcher"):
        hub = hub_of(request)
        state.searcher = Searcher(hub.archive, hub.bundle)  # opens nothing yet: of two at once one is dropped
    searcher = state.searcher
    assert isinstance(searcher, Searcher)
    return searcher


@router.get("/search")
def search_words(
    request: Request,
    asked: Annotated[Wanted, Depends(wanted)],
    query: Annotated[str, Query(description="what to look for, in words")] = "",
    like: Annotated[int | None, Query(description="uid of an observation: find what is like it")] = None,
) -> dict[str, Any]:
    """Search everything that was ever sent for a sentence, or for what is like an observation."""
    if bool(query) == (like is not None):
        raise UsageError("search: expected query or like, found both or neither")
    searcher = searcher_of(request)
    question = searcher.text(query) if like is None else searcher.like(like)
    return _answered(hub_of(request), searcher, [question], asked)[0]


@router.post("/search", openapi_extra=_BODY)
async def search_examples(request: Request, asked: Annotated[Wanted, Depends(wanted)]) -> dict[str, Any]:
    """Search for what is like a recording or a picture, or ask many questions: {"queries": [{"text": ...}, ...]}."""
    hub, searcher = hub_of(request), searcher_of(request)
    body = await read_body(request, hub.settings.max_body_bytes)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return await run_in_threadpool(_examples, hub, searcher, kind, body, asked)


def _examples(hub: Hub, searcher: Searcher, kind: str, body: bytes, asked: Wanted) -> dict[str, Any]:
    if kind == "application/json":
        questions = [_question(searcher, each) for each in _queries(body)]
        answers = _answered(hub, searcher, questions, asked)
        return {"answers": answers}
    if kind.startswith("audio/"):
        return _answered(hub, searcher, [searcher.sound(body)], asked)[0]
    if kind.startswith("image/"):
        return _answered(hub, searcher, [searcher.picture(body)], asked)[0]
    raise UsageError(f"Content-Type: expected application/json, audio/* or image/*, found {kind!r}")


def _queries(body: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the questions of a batch. Raises UsageError."""
    try:
        queries = json.loads(body)["queries"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError('body: expected {"queries": [...]}, found something else') from error
    if not isinstance(queries, list) or not queries or not all(isinstance(each, dict) for each in queries):
        raise UsageError("queries: expected a list of objects, found something else")
    return queries


def _question(searcher: Searcher, query: Mapping[str, Any]) -> Question:
    if isinstance(text := query.get("text"), str):
        return searcher.text(text)
    if isinstance(uid := query.get("uid"), int):
        return searcher.like(uid)
    if isinstance(code := query.get("code"), str):
        try:
            return searcher.code(bytes.fromhex(code), code)
        except ValueError as error:
            raise UsageError(f"code: expected hexadecimal digits, found {code!r}") from error
    raise UsageError("query: expected text, uid or code, found none of them")


def _answered(
    hub: Hub, searcher: Searcher, questions: Sequence[Question], asked: Wanted
) -> list[dict[str, Any]]:
    answers = searcher.search(questions, asked.top, asked.where, asked.per_day, asked.prefix_bits)
    numbers = {hit.device for answer in answers for hit in answer.hits}
    names = {number: hub.registry.devices.numbered(number).name for number in numbers}
    counts = hub.archive.counts()
    return [_record(searcher, answer, names, counts) for answer in answers]


def _record(
    searcher: Searcher, answer: Answer, names: Mapping[int, str], counts: Mapping[tuple[int, str], int]
) -> dict[str, Any]:
    question, most = answer.question, answer.max_distance
    return {
        "query": question.shown,
        "code": question.code.tobytes().hex(),
        "code_space": searcher.code_space,
        "max_distance": most,
        "false_alarms_per_day": None if most is None else searcher.per_day(question, most),
        "is_whole": answer.is_whole,
        "notes": notes_of(counts, searcher.code_space, [answer]),
        "results": [
            {
                "rank": rank,
                "uid": hit.uid,
                "device": names[hit.device],
                "epoch": str(hit.epoch),  # above 2^53, which JavaScript cannot hold
                "seq": hit.seq,
                "source": hit.source,
                "offset_s": hit.first_sample / hit.sample_rate_hz,
                "duration_s": hit.n_samples / hit.sample_rate_hz,
                "started_at": iso_ns(hit.wall_ns),
                "distance": hit.distance,
                "probability": searcher.probability(question, hit.distance),
                "false_alarms_per_day": searcher.per_day(question, hit.distance),
            }
            for rank, hit in enumerate(answer.hits, start=1)
        ],
    }
