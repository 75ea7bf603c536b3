"""What a data set is asked: one query for each species, the data set's own sentences, or two species at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.combination import Conjunction, compose, conjunctions
from train.datasets import Dataset, Species
from train.metrics import hamming_table
from train.retrieval import Relevance

Vectors = NDArray[np.float32]
BOTH = "two species at once"  # group of the questions with two parts


@dataclass(frozen=True, slots=True)
class Questions:
    """What a data set is asked, and what answers it."""

    texts: tuple[str, ...]  # every wording of every query
    query_of_text: NDArray[np.int64]  # [n_texts]
    relevance: Relevance
    in_group: bool = (
        True  # a group's queries ask the items of that group alone (the paper); else all items (INQUIRE)
    )
    classify: bool = True  # whether the nearest query is the class of an item
    candidates: tuple[NDArray[np.int64], ...] = ()  # the items that each query may be answered with; () = all

    @property
    def n_queries(self) -> int:
        """Queries, each of one or more wordings."""
        return len(self.relevance.answers)

    def of_queries(self, per_text: Vectors) -> Vectors:
        """Mean over the wordings of each query, [n_texts, n] -> [n_queries, n]."""
        total = np.zeros((self.n_queries, per_text.shape[1]), dtype=np.float32)
        np.add.at(total, self.query_of_text, per_text)
        counts = np.bincount(self.query_of_text, minlength=self.n_queries)
        return total / counts[:, None].astype(np.float32)


def worded(wordings: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Lay the wordings of each query one after another: all texts, and the query of each."""
    texts = tuple(text for own in wordings for text in own)
    return texts, np.repeat(np.arange(len(wordings)), [len(own) for own in wordings])


def species_questions(dataset: Dataset, prompts_of: Callable[[Species], Sequence[str]]) -> Questions:
    """One query for each species that the items show, in all its wordings; an item answers its own species."""
    shown = {key for item in dataset.items for key in item.species}
    species = [s for key, s in dataset.species.items() if key in shown]
    texts, query_of_text = worded([prompts_of(s) for s in species])
    relevance = Relevance.of_species(
        [s.key for s in species],
        [s.group for s in species],
        [item.species for item in dataset.items],
        [item.group for item in dataset.items],
    )
    return Questions(texts, query_of_text, relevance)


def sentence_questions(dataset: Dataset) -> Questions:
    """The data set's own sentences with their relevant items, asked of the items listed for each, else of all (INQUIRE)."""
    texts, query_of_text = worded([(query.text,) for query in dataset.queries])
    relevance = Relevance(
        tuple(np.asarray(sorted(query.relevant), dtype=np.int64) for query in dataset.queries),
        np.asarray([query.group for query in dataset.queries], dtype=np.str_),
        np.asarray([item.group for item in dataset.items], dtype=np.str_),
    )
    everything = frozenset(range(len(dataset.items)))
    listed = [query.candidates or everything for query in dataset.queries]
    candidates = tuple(np.asarray(sorted(own), dtype=np.int64) for own in listed)
    if all(own is everything for own in listed):
        candidates = ()
    return Questions(texts, query_of_text, relevance, False, False, candidates)


def questions_of(dataset: Dataset, prompts_of: Callable[[Species], Sequence[str]]) -> Questions:
    """The sentences of a data set that has some, else its species."""
    return sentence_questions(dataset) if dataset.queries else species_questions(dataset, prompts_of)


def both_species(
    questions: Questions, least: int = 3, most: int = 200
) -> tuple[tuple[Conjunction, ...], Questions]:
    """Questions for two species in the same item, worded "A and B" from the first wording of each.

    Args:
        least: items that must show both.
        most: questions, those with the most answers first.
    """
    of_item: list[list[int]] = [[] for _ in range(questions.relevance.n_items)]
    for query, answers in enumerate(questions.relevance.answers):
        for item in answers:
            of_item[item].append(query)
    found = conjunctions(of_item, least=least)[:most]
    first = {int(q): questions.texts[i] for i, q in reversed(list(enumerate(questions.query_of_text)))}
    texts, query_of_text = worded([(" and ".join(first[q] for q in c.parts),) for c in found])
    relevance = Relevance(
        tuple(c.answers for c in found),
        np.asarray([BOTH] * len(found), dtype=np.str_),
        questions.relevance.item_groups,
    )
    return tuple(found), Questions(texts, query_of_text, relevance, in_group=False, classify=False)


def added(found: Sequence[Conjunction], queries: Vectors) -> Vectors:
    """Logits of questions with several parts as the sum of the parts' logits, [n_questions, n_bits]."""
    return np.stack([compose(queries[list(c.parts)]) for c in found])


def side_by_side(found: Sequence[Conjunction], queries: Vectors) -> Vectors:
    """Logits of the two parts of each question, [n_questions, 2 * n_bits], for `farthest_of_two`."""
    return np.stack([queries[list(c.parts)].ravel() for c in found])


def farthest_of_two(pairs: Vectors, items: Vectors) -> Vectors:
    """Hamming distance to the farther of two parts, [n_questions, 2 * n_bits] x [n_items, n_bits]: small where both are near."""
    n_bits = items.shape[1]
    return np.maximum(hamming_table(pairs[:, :n_bits], items), hamming_table(pairs[:, n_bits:], items))
