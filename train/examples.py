"""What a hashing run draws from: items that load as tensors, and the sentences of each class."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Examples(Protocol):
    """Labelled observations. load must be a pure function of its arguments: a resumed run draws the same."""

    @property
    def name(self) -> str:
        """Tells this selection of data apart; part of the name of caches."""
        ...

    @property
    def classes(self) -> NDArray[np.int64]:
        """Class of each item, [n_items]."""
        ...

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences that may describe an item."""
        ...

    @property
    def sentence_classes(self) -> NDArray[np.int64]:
        """Class of each sentence, ascending, [n_sentences]."""
        ...

    def load(self, index: int, random: np.random.Generator | None) -> Tensor:
        """Return an item as the tower takes it; random: augment it, None: as it is."""
        ...


def fingerprint(examples: Examples) -> str:
    """Twelve digits that change with the data."""
    digest = hashlib.sha256(examples.name.encode())
    digest.update(examples.classes.tobytes())
    digest.update("\n".join(examples.sentences).encode())
    return digest.hexdigest()[:12]
