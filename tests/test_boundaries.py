"""Who may import whom, where SQL may stand, and that a recorder needs no training framework."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Inside edge, lowest layer first. A family is a module and those named after it: store is store, store_files, ...
LAYERS: tuple[dict[str, frozenset[str]], ...] = (
    {"errors": frozenset({"errors"})},
    {
        "checks of fields, durable files, formats of others": frozenset(
            {"require", "durable", "file_search", "onnx_protobuf", "urls", "utf8"}
        )
    },
    {
        "codes": frozenset({"codes"}),
        "bundle": frozenset({"bundle", "manifest", "reference"}),
        "watchlist": frozenset({"watchlist", "query"}),
        "observation": frozenset({"observation", "verdict"}),
    },
    {
        "config": frozenset({"config"}),
        "sound": frozenset({"audio", "microphone", "clock", "guano", "recording_time", "resampling", "riff"}),
        "windows": frozenset({"windows"}),
        "pictures": frozenset({"images", "picture_files"}),
        "encoder": frozenset({"encoder", "onnx_encoder", "tflite_encoder"}),
        "calibration": frozenset(
            {"calibration", "false_alarms", "background", "alarm", "alarms", "precision"}
        ),
        "matcher": frozenset({"matcher"}),
        "clips": frozenset({"clips"}),
        "store": frozenset({"store", "unstored"}),
        "what travels": frozenset({"batch", "device_key", "frames", "downlink"}),
        "the running process": frozenset({"run_start", "stopping", "systemd", "ticks"}),
    },
    {
        "pipeline": frozenset({"pipeline"}),
        "what is expected of queries": frozenset({"explain"}),
        "alarms of a recorder": frozenset({"monitor_alarms"}),
    },
    {
        "monitor": frozenset({"monitor"}),
        "search": frozenset({"search"}),
        "queries": frozenset({"queries"}),
        "results": frozenset({"results"}),
        "check": frozenset({"check"}),
        "sync": frozenset({"sync"}),
        "updates": frozenset({"update"}),
    },
)
# Families of one layer that may know another: a watchlist carries codes of a bundle's code space; windows and clips are made of a
# source's events; a picture has a time as a recording has; an example is cut into windows, or read as a picture; the nearest query
# is accepted by its probability; a batch holds what a store holds, packed alike.
NEIGHBOURS = {
    "watchlist": {"bundle", "codes"},
    "windows": {"sound"},
    "clips": {"sound", "windows"},
    "pictures": {"sound"},
    "encoder": {"sound", "windows", "pictures"},
    "matcher": {"calibration"},
    "what travels": {"store"},
    "sync": {"updates"},
}
CONTRACTS = {"errors", *(name for layer in LAYERS[1:3] for family in layer.values() for name in family)}

# What other packages may import: None is everything of it.
PACKAGES: dict[str, dict[str, set[str] | None]] = {
    "edge": {},
    "train": {"edge": CONTRACTS},
    "export": {
        "edge": CONTRACTS | {"encoder", "images"},
        "train": {
            "calibrate", "checkpoint", "data", "dataset_examples", "datasets", "examples", "hash_checkpoint", "itq", "metrics", "model", "prepare", "settings", "soundscape", "text_tower",
            "texts", "towers", "windows",
        },
    },
    "hub": {
        "edge": CONTRACTS | {
            "alarms", "audio", "audio_events", "background", "batch", "batch_calibration", "batch_cbor", "batch_mqtt", "bundle_pair", "bundle_update", "calibration", "device_key", "downlink", "encoder", "encoder_runtimes", "encoder_tokens", "explain",
            "explain_warnings", "false_alarms", "file_search", "frames", "frames_context", "frames_key", "frames_receipt", "images", "picture_files", "precision", "query_grammar", "recording_time", "resampling", "search",
            "store_blocks", "store_schema", "verdict", "windows",
        },
    },
}  # fmt: skip
ALSO = {  # what is measured, and what trains, is what is deployed
    "train.evaluate": {"edge.encoder"},
    "train.evaluate_bundle": {"edge.encoder"},
    "train.dataset_examples": {"edge.images"},
}

RECORDER_LIBRARIES = {
    "PIL", "ai_edge_litert", "astral", "numpy", "onnxruntime", "rich", "sounddevice", "soundfile", "soxr", "tflite_runtime", "tokenizers", "tomli",
}  # fmt: skip
FIELD_LIBRARIES = {
    "cbor2",
    "cryptography",
    "paho",
    "tuf",
    "securesystemslib",
    "urllib3",
}  # of the extra field, in modules of their own
RUNTIMES = ("ai_edge_litert", "onnxruntime", "tflite_runtime")
TRAINING_FRAMEWORKS = ("torch", "transformers", "open_clip", "peft", "onnx", "tensorflow")
SQL = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|PRAGMA\s)",
    re.IGNORECASE | re.DOTALL,
)


def modules(package: str) -> dict[str, ast.Module]:
    """Return the syntax trees of a package by dotted name."""
    trees = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of everything imported, also inside functions and through importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            assert node.module is not None
            if node.module in PACKAGES:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "__import__",
        ):
            yield from (argument.value for argument in node.args[:1] if _is_text(argument))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def place(module: str) -> tuple[int, str]:
    """Return the layer and family of a module of edge, named without `edge.`."""
    found = [
        (name, layer, family)
        for layer, families in enumerate(LAYERS)
        for family, names in families.items()
        for name in names
        if module == name or module.startswith(f"{name}_")
    ]
    assert found, f"edge/{module}.py: expected a place in LAYERS, found none; say where it belongs"
    _, layer, family = max(found, key=lambda entry: len(entry[0]))
    return layer, family


def is_downward(importer: str, imported: str) -> bool:
    """Return whether a module of edge may import another."""
    (layer, family), (other_layer, other_family) = place(importer), place(imported)
    if layer == other_layer:
        return family == other_family or other_family in NEIGHBOURS.get(family, ())
    return other_layer < layer


def forbidden(importer: str, imported: str) -> bool:
    """Return whether a module of one package must not import that of another."""
    package, (other, *rest) = importer.split(".")[0], imported.split(".")
    if other not in PACKAGES or other == package or imported in ALSO.get(importer, ()):
        return False
    if rest == ["__version__"]:  # no module
        return False
    allowed = PACKAGES[package].get(other, set())
    return allowed is not None and (not rest or rest[0] not in allowed)


def test_the_packages_are_those_that_are_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"packages\.find\]\ninclude = \[(.+)\]", text)
    assert listed
    assert set(re.findall(r'"(\w+)"', listed.group(1))) == set(PACKAGES)
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may_of_one_another(package: str) -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, tree in modules(package).items()
        for imported in imports(tree)
        if forbidden(name, imported)
    ]
    assert wrong == []


def test_inside_edge_imports_go_downward() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, tree in modules("edge").items()
        for imported in imports(tree)
        if imported.startswith("edge.") and name != "edge"
        if not is_downward(name.removeprefix("edge."), imported.split(".")[1])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_imports_go_in_a_circle(package: str) -> None:
    trees = modules(package)
    TopologicalSorter({name: set(imports(tree)) & set(trees) for name, tree in trees.items()}).prepare()


def test_edge_imports_only_what_a_recorder_has() -> None:
    known = RECORDER_LIBRARIES | FIELD_LIBRARIES | set(sys.stdlib_module_names) | {"edge"}
    wrong = [
        f"{name} imports {imported}"
        for name, tree in modules("edge").items()
        for imported in imports(tree)
        if imported.split(".")[0] not in known
    ]
    assert wrong == []


def statements(tree: ast.Module) -> list[str]:
    """Return the SQL in the texts of a module."""
    return [
        str(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]


def test_sql_stands_only_in_store_modules() -> None:
    trees = {name: tree for package in PACKAGES for name, tree in modules(package).items()}
    with_sql = {name for name, tree in trees.items() if statements(tree) or "sqlite3" in imports(tree)}
    assert "edge.store" in with_sql
    assert [
        name for name in with_sql if not re.fullmatch(r"edge\.store(_\w+)?|hub\.(store|archive)_\w+", name)
    ] == []


def test_the_rules_can_be_broken() -> None:
    hidden = ast.parse(
        "def f():\n    import torch\n    from edge import store\n    importlib.import_module('onnx')"
    )
    assert sorted(imports(hidden)) == ["edge.store", "onnx", "torch"]
    assert not is_downward("codes", "bundle")
    assert not is_downward("matcher", "store_reader")
    assert not is_downward("store", "pipeline")
    assert not is_downward("search", "monitor")
    assert is_downward("monitor_view", "monitor_reports")
    assert forbidden("edge.codes", "train.model")
    assert forbidden("train.loop", "edge.encoder")
    assert forbidden("train.evaluate", "edge.store")
    assert forbidden("export.to_onnx", "train.loop")
    assert forbidden("train.loop", "edge")
    assert not forbidden("train.evaluate", "edge.encoder")
    assert statements(ast.parse("x = 'select a from b'"))
    with pytest.raises(AssertionError, match="LAYERS"):
        place("helpers")


def test_the_recorders_main_job_needs_none_of_the_extra_field() -> None:
    script = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(FIELD_LIBRARIES)!r}:
            raise ImportError(f"{{name}} is not in the base install")
sys.meta_path.insert(0, Blocked())
for name in ("monitor", "search", "queries", "results", "check"):
    importlib.import_module("edge." + name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_module_of_edge_imports_without_training_frameworks_and_portaudio() -> None:
    script = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {TRAINING_FRAMEWORKS!r}:
            raise ImportError(f"{{name}} is not on a recorder")
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
sys.meta_path.insert(0, Blocked())
n_imported = 0
for name in {sorted(modules("edge"))!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # a board has one runtime, not each
        if error.name.split(".")[0] not in {{*{RUNTIMES!r}, *{sorted(FIELD_LIBRARIES)!r}}}:
            raise
    n_imported += 1
print(n_imported)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(modules("edge"))
