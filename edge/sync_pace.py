"""How large batches are: as large as the line answers in time, as small as the hub takes."""

from __future__ import annotations

from edge.batch import MAX_RECORDS

LEAST_BYTES = 1_024
_FIRST_BYTES = 8_192  # over a line that is not known yet
_QUICK_S, _SLOW_S = 10.0, 40.0


class Pace:
    """Doubles after quick answers and halves after slow or missing ones. Bytes go up to most_bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.n_bytes = min(_FIRST_BYTES, most_bytes)
        self.n_records = MAX_RECORDS

    def answered(self, took_s: float) -> None:
        """Take note of a receipt."""
        if took_s > _SLOW_S:
            self.failed()
        elif took_s < _QUICK_S:
            self.n_bytes = min(self._most_bytes, self.n_bytes * 2)
        self.n_records = min(MAX_RECORDS, self.n_records * 2)

    def failed(self) -> None:
        """Take note that nothing came back."""
        self.n_bytes = max(min(LEAST_BYTES, self._most_bytes), self.n_bytes // 2)

    def refused(self, n_records: int) -> None:
        """Take note that the hub does not take n records at once."""
        self.n_records = max(1, n_records // 2)

    def is_whole(self) -> bool:
        """Return whether nothing was refused lately."""
        return self.n_records == MAX_RECORDS
