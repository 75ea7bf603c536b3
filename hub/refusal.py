"""Refusals: errors of the hub that a recorder or a person gets as an answer, each with its HTTP status."""

from __future__ import annotations

from typing import ClassVar

from edge.errors import HubError


class RefusedError(HubError):
    """The hub does not do what was asked; status: of the HTTP answer; retry_after_s: when to ask again, None = unsaid."""

    status: ClassVar[int] = 503
    retry_after_s: float | None = None


class UnauthorizedError(RefusedError):
    """Not signed by a recorder that is enrolled, or a person without the token."""

    status = 401


class UnknownError(RefusedError):
    """There is nothing of that name or number."""

    status = 404


class TooLargeError(RefusedError):
    """More bytes than the hub takes at once."""

    status = 413


class OverQuotaError(RefusedError):
    """More than a recorder may send in a day."""

    status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BusyError(RefusedError):
    """More at once than the hub can do; nothing is wrong with what was sent."""

    retry_after_s = 5.0


class NoRoomError(RefusedError):
    """The hub's disk is full; nothing of what was sent is kept."""

    status = 507
    retry_after_s = 600.0
