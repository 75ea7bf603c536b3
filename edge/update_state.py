"""What is remembered of installed pairs, and what a visit finds of the one on trial."""

from __future__ import annotations

from dataclasses import dataclass

ADOPTED = 0  # number of the pair that was there before any was fetched


@dataclass(frozen=True, slots=True)
class Trial:
    """Since when a pair is on trial, UTC in ns; epoch, first_seq: the first observation since then, of whatever pair.

    n_visits: since then; n_seen: those of them that found the pair running.
    """

    since_ns: int
    epoch: int
    first_seq: int
    n_visits: int = 0
    n_seen: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a visit finds in the store. is_seen: the pair was started; n_codes: made since its last start, with it.

    epoch, end_seq: the number of the next observation; n_since: made since the trial began, by whatever ran.
    """

    is_seen: bool
    n_codes: int
    epoch: int
    end_seq: int
    n_since: int


@dataclass(frozen=True, slots=True)
class State:
    """active: number of the pair that is to run; previous: where to go back to; refused: never installed again.

    newest: largest number that was ever installed; attempts: failed self-tests and trials of the pair with number
    attempted. awaited: a start of edge-monitor other than this run ("" = any), None = it runs what it is to run;
    n_requests: how often it was asked to since then.
    """

    active: int
    previous: int | None = None
    trial: Trial | None = None
    refused: tuple[int, ...] = ()
    newest: int = ADOPTED
    attempted: int = ADOPTED
    attempts: int = 0
    awaited: str | None = None
    n_requests: int = 0
