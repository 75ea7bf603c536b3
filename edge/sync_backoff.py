"""Waiting between attempts: exponential with full jitter, for ever, never before the hub asked for.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015: delay = uniform(0, min(cap, base * 2^n)).
"""

from __future__ import annotations

import random

BASE_S = 4.0
CAP_S = 3600.0
MAX_RETRY_AFTER_S = 86_400.0  # a hub that says more is not believed


def delay_s(n_failures: int, retry_after_s: float | None, jitter: random.Random) -> float:
    """Return how long to wait after the n-th failure in a row (from 1), s.

    With Retry-After the jitter comes on top, so that a fleet that was sent away together does not come back together.
    """
    longest = min(CAP_S, BASE_S * 2.0 ** min(n_failures, 30))
    asked = 0.0 if retry_after_s is None else min(max(retry_after_s, 0.0), MAX_RETRY_AFTER_S)
    return asked + jitter.uniform(0.0, longest)
