"""Is the warning of `edge-queries --explain` right? Field queries outside and inside the vocabulary of a bundle, labelled by hand.

A sentence can work where its sound is among the trained classes, under whatever wording. Sentences and labels: explain_sentences.toml.

Example:
    python scripts/explain_sentences.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from edge.bundle import Bundle, default_bundle
from edge.encoder import compile_queries
from edge.errors import FieldcubeError
from edge.explain import Explanation
from edge.explain_warnings import FAR_SHARE, unknown
from edge.queries_explain import explained, known_sentences
from edge.watchlist import Query

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SENTENCES = Path(__file__).with_suffix(".toml")
KINDS = ("unknown", "background")

Rule = Callable[[Explanation], bool]


def rules(bundle: Bundle) -> dict[str, Rule]:
    """Return what may be taken for `it cannot work`: the warning, its two halves alone, and any warning."""
    known, far_bits = known_sentences(bundle), FAR_SHARE * bundle.manifest.code_bits
    if known is None:
        raise FieldcubeError(
            f"{bundle.folder}: expected a text encoder and a list of trained classes, found none"
        )
    never_firm = replace(known, firm=float("inf"))

    def has(*kinds: str) -> Rule:
        return lambda each: any(warned.kind in kinds for warned in each.warnings)

    return {
        "the warning (far and unsure)": has("unknown"),
        "far alone": lambda each: bool(unknown(each.query, never_firm, far_bits)),
        "unsure alone": lambda each: bool(unknown(each.query, known, 0.0)),
        "the warning, or cannot be told from background": has("unknown", "background"),
    }


def nearest(explanation: Explanation) -> str:
    """Return what the warning names as the nearest known sentence."""
    told = [warned.message for warned in explanation.warnings if warned.kind == "unknown"]
    return told[0].split("knows is ")[1].split(":")[0] if told else ""


def confusion(explanations: Sequence[Explanation], can_work: Set[str], rule: Rule) -> str:
    """Return a row of the table: how often a rule is right about sentences that cannot work and that can."""
    cannot = [rule(each) for each in explanations if each.query.text not in can_work]
    can = [rule(each) for each in explanations if each.query.text in can_work]
    right = sum(cannot) + len(can) - sum(can)
    return f"| {sum(cannot)} of {len(cannot)} | {sum(can)} of {len(can)} | {right} of {len(explanations)} |"


def report(name: str, sentences: Mapping[str, list[str]], bundle: Bundle, tables: Mapping[str, Rule]) -> None:
    """Print each sentence with its label and warnings, then the table."""
    texts = [text for each in sentences.values() for text in each]
    watchlist = compile_queries(bundle, [Query(text, text) for text in texts])
    explanations = explained(bundle, watchlist, None, None)
    can_work = {*sentences["other_words"], *sentences["inside"]}
    print(f"\n{name}")
    for each in explanations:
        label = "can work" if each.query.text in can_work else "cannot"
        kinds = ", ".join(warned.kind for warned in each.warnings if warned.kind in KINDS)
        print(f"{label:9} {each.query.text:45} {kinds or '-':20} {nearest(each)}".rstrip())
    print(
        "\n| taken for `it cannot work` | of those that cannot | of those that can | right |\n|---|---|---|---|"
    )
    for rule_name, rule in tables.items():
        print(f"| {rule_name} {confusion(explanations, can_work, rule)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print both lists of sentences: that on which the limits were chosen, and that on which they were measured."""
    parser = argparse.ArgumentParser(
        description="Measure how often the warnings of edge-queries --explain are right."
    )
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="the starter")
    args = parser.parse_args(argv)
    lists = tomllib.loads(SENTENCES.read_text(encoding="utf-8"))
    try:
        bundle = Bundle.load(args.bundle)
        tables = rules(bundle)
        for name, sentences in lists.items():
            report(name, sentences, bundle, tables)
    except FieldcubeError as error:
        print(f"explain_sentences: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
