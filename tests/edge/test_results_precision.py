"""edge-results precision: counts, share and interval of each query, and from when on its verdicts change its probability."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import Bundle, write_bundle
from edge.precision import fit_logistic, wilson
from edge.results import main
from edge.store import ObservationStore
from edge.store_verdicts import VerdictStore
from edge.verdict import Answer, Verdict


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return an empty store: verdicts need nothing of it."""
    path = tmp_path / "a.sqlite"
    ObservationStore.open(path, "dev").close()
    return path


Keep = Callable[..., None]


@pytest.fixture
def keep(store: Path, tiny: Bundle) -> Keep:
    """Return keep(query, right, wrong, unsure, **fields): keep so many verdicts, the right ones at 40 bits and less."""
    seqs = iter(range(10_000))

    def build(query: str, n_right: int, n_wrong: int, n_unsure: int = 0, **change: str) -> None:
        fields: dict[str, Any] = {"text": f"a {query}", "code_space": tiny.manifest.code_space, **change}
        answers: list[tuple[Answer, int]] = [("right", 40 - i) for i in range(n_right)]
        answers += [("wrong", 41 + i) for i in range(n_wrong)] + [("unsure", 41)] * n_unsure
        with VerdictStore.open(store) as verdicts:
            verdicts.keep(
                Verdict(
                    "dev",
                    1,
                    next(seqs),
                    query,
                    distance=bits,
                    probability=0.9,
                    answer=answer,
                    given_ns=0,
                    **fields,
                )
                for answer, bits in answers
            )

    return build


@pytest.fixture
def lines(store: Path, tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return lines(*arguments): what edge-results precision prints."""

    def run(*arguments: str, bundle: Path = tiny.folder) -> list[str]:
        assert main(["precision", "--store", str(store), "--bundle", str(bundle), *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


Lines = Callable[..., list[str]]


def test_the_table_has_a_line_for_each_query(keep: Keep, lines: Lines) -> None:
    keep("owl", 12, 10, 3)
    keep("fox", 8, 11)
    keep("frog in the pond", 0, 0, 1)
    assert [line.rsplit("  ", 1)[0].split() for line in lines()] == [
        ["query", "right", "wrong", "unsure", "precision", "between"],
        ["fox", "8", "11", "0", "0.42", "0.23..0.64"],
        ["frog", "in", "the", "pond", "0", "0", "1", "-", "0.00..1.00"],
        ["owl", "12", "10", "3", "0.55", "0.35..0.73"],
    ]
    fit = json.loads(lines("--json", "--query", "owl")[0])["fit"]
    half_at = f"{-fit['intercept'] / fit['coefficient']:.1f} bits"
    assert [line.rsplit("  ", 1)[1] for line in lines()] == [
        "half at",
        "- (2 more right)",
        "- (10 more right and 10 more wrong)",
        half_at,
    ]
    assert len({line.index("between" if i == 0 else "..") for i, line in enumerate(lines())}) == 2


def test_json_has_the_fit_that_edge_monitor_uses(keep: Keep, lines: Lines, tiny: Bundle) -> None:
    keep("owl", 12, 10, 3)
    keep("fox", 9, 11)
    fox, owl = map(json.loads, lines("--json"))
    prior = tiny.manifest.calibration
    assert prior is not None
    distances = [40 - i for i in range(12)] + [41 + i for i in range(10)]
    coefficient, intercept = fit_logistic(distances, [True] * 12 + [False] * 10, prior)
    low, high = wilson(12, 22)
    assert owl == {
        "type": "precision", "query": "owl", "text": "a owl", "code_space": tiny.manifest.code_space,
        "n_right": 12, "n_wrong": 10, "n_unsure": 3, "precision": 12 / 22, "low": low, "high": high,
        "fit": {"coefficient": pytest.approx(coefficient), "intercept": pytest.approx(intercept), "n": 22},
    }  # fmt: skip
    assert (fox["n_right"], fox["fit"]) == (9, None)


def test_nobody_was_sure_is_no_precision(keep: Keep, lines: Lines) -> None:
    keep("owl", 0, 0, 2)
    (owl,) = map(json.loads, lines("--json"))
    assert (owl["precision"], owl["low"], owl["high"]) == (None, 0.0, 1.0)


@pytest.mark.parametrize("wanted", ["owl", "a owl"])
def test_a_query_is_chosen_by_name_or_sentence(keep: Keep, lines: Lines, wanted: str) -> None:
    keep("owl", 1, 0)
    keep("fox", 1, 0)
    assert [json.loads(line)["query"] for line in lines("--json", "--query", wanted)] == ["owl"]


def test_verdicts_of_another_code_space_are_counted_but_not_fitted(keep: Keep, lines: Lines) -> None:
    keep("owl", 12, 12, code_space="other-0123456789ab")
    assert lines()[1].split()[:4] == ["owl", "12", "12", "0"]
    assert lines()[1].endswith("- (code space other-0123456789ab: give its --bundle)")
    (owl,) = map(json.loads, lines("--json"))
    assert (owl["n_right"], owl["fit"]) == (12, None)


def test_a_name_that_had_two_sentences_has_two_lines(keep: Keep, lines: Lines) -> None:
    keep("owl", 1, 0)
    keep("owl", 0, 1, text="an owl calling")
    keep("fox", 1, 0)
    assert [line.split("  ")[0] for line in lines()[1:]] == ["fox", "owl: a owl", "owl: an owl calling"]


def test_a_bundle_without_calibration_is_told(keep: Keep, lines: Lines, tiny: Bundle, tmp_path: Path) -> None:
    keep("owl", 12, 12)
    files: dict[str, bytes | Path] = {
        path.name: path for path in tiny.folder.iterdir() if path.name != "manifest.json"
    }
    bundle = write_bundle(tmp_path / "bare", replace(tiny.manifest, calibration=None), files)
    assert lines(bundle=bundle.folder)[1].endswith("- (the bundle has no calibration to start from)")


def test_names_do_not_move_the_cursor(keep: Keep, lines: Lines) -> None:
    keep("owl\x1b[2J\nfox\u202e", 1, 0, code_space="x\x1b[2J")
    assert len(lines()) == 2
    assert all(letter.isprintable() for line in lines() for letter in line)


def test_without_verdicts_there_is_no_table(
    store: Path, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["precision", "--store", str(store), "--bundle", str(tiny.folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "edge-results: no verdicts yet; edge-results verify asks for them\n"
    assert [path.name for path in store.parent.glob("*verdicts*")] == []


def test_a_query_without_verdicts_is_told(
    keep: Keep, store: Path, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("owl", 1, 0)
    command = ["precision", "--store", str(store), "--bundle", str(tiny.folder)]
    assert main([*command, "--query", "\x1b[2Jwolf"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "edge-results: no verdicts on  [2Jwolf\n")


def test_without_a_store_there_is_an_error(
    tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["precision", "--store", str(tmp_path / "no.sqlite"), "--bundle", str(tiny.folder)]
    assert main(command) == 1
    assert "no.sqlite: expected a fieldcube store, found no such file" in capsys.readouterr().err
