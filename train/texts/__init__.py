"""Sentences that go with sounds: hand-written ones in sounds.toml, and templates over species names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from train.data import Recording

SPECIES_TEMPLATES = (
    "{common}",
    "{scientific}",
    "{scientific} with common name {common}",
    "the call of a {common}",
    "a {common} singing",
    "{common} calling",
    "song of {common}",
    "sound of the {common}",
)
FAMILY_TEMPLATES = ("{family}", "a {family} calling", "{family} song", "call of a {family}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One training sentence and the classes that it is true of."""

    text: str
    classes: tuple[int, ...]
    is_group: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All classes, their sentences, and sentences that stay out of training."""

    class_keys: tuple[str, ...]
    queries: tuple[str, ...]  # the plain query of each class: what a user would type
    prompts: tuple[Prompt, ...]
    heldout: tuple[tuple[str, int], ...]  # (sentence, class)
    own: tuple[
        tuple[int, ...], ...
    ]  # for each class, the prompts that are true of it alone; the first is its plain query
    groups: tuple[tuple[int, ...], ...]  # for each class, the prompts that are true of a group it belongs to


def read_sounds() -> Mapping[str, Any]:
    """The hand-written sentences of sounds.toml."""
    with (Path(__file__).parent / "sounds.toml").open("rb") as stream:
        return tomllib.load(stream)


def family_of(common_name: str) -> str:
    """The last word of a species' common name, which names its kind: "owl" of "Northern Saw-whet Owl"."""
    last = common_name.replace("-", " ").split()[-1].lower()
    return last if last.isalpha() else ""


def build_vocabulary(recordings: Sequence[Recording]) -> Vocabulary:
    """Collect classes and sentences for the recordings at hand."""
    sounds = read_sounds()
    keys = sorted({r.class_key for r in recordings})
    index = {key: i for i, key in enumerate(keys)}
    first = {r.class_key: r for r in reversed(recordings)}
    prompts: list[Prompt] = []
    queries: list[str] = []
    heldout: list[tuple[str, int]] = []
    families: dict[str, set[int]] = {}
    for key in keys:
        if key in sounds["sounds"]:
            entry = sounds["sounds"][key]
            queries.append(entry["train"][0])
            prompts += [Prompt(text, (index[key],), False) for text in entry["train"]]
            heldout += [(text, index[key]) for text in entry["heldout"]]
            continue
        recording = first[key]
        common, scientific = recording.label.strip(), recording.species.strip()
        queries.append(common)
        names = {"common": common, "scientific": scientific}
        templates = [t for t in SPECIES_TEMPLATES if scientific or "{scientific}" not in t]
        prompts += [Prompt(t.format(**names), (index[key],), False) for t in templates]
        if family := family_of(common):
            families.setdefault(family, set()).add(index[key])
    for family, members in sorted(families.items()):
        prompts += [Prompt(t.format(family=family), tuple(sorted(members)), True) for t in FAMILY_TEMPLATES]
    for group in sounds["groups"].values():
        members = tuple(sorted({index[r.class_key] for r in recordings if r.dataset in group["datasets"]}))
        if members:
            prompts += [Prompt(text, members, True) for text in group["train"]]
    own: list[list[int]] = [[] for _ in keys]
    groups: list[list[int]] = [[] for _ in keys]
    for number, prompt in enumerate(prompts):
        for member in prompt.classes:
            (groups if prompt.is_group else own)[member].append(number)
    return Vocabulary(
        tuple(keys),
        tuple(queries),
        tuple(prompts),
        tuple(heldout),
        tuple(map(tuple, own)),
        tuple(map(tuple, groups)),
    )
