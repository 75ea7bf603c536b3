"""Scientific names that a person gives to queries: a sentence is no taxon, so nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.errors import UsageError

MAX_LETTERS = 200


def taxa_of(given: Sequence[str]) -> Mapping[str, str]:
    """Return the scientific name of each query in texts as "owl=Strix aluco". Raises UsageError."""
    names: dict[str, str] = {}
    for each in given:
        query, sign, name = (part.strip() for part in each.rpartition("="))
        if not sign or not query or not name or len(each) > MAX_LETTERS or not each.isprintable():
            raise UsageError(f"taxon: expected QUERY=SCIENTIFIC NAME, as owl=Strix aluco, found {each!r}")
        names[query] = name
    return names
