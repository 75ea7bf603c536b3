"""Puts what scripts/check_hub.sh measured into docs/hub_load.md, between its marks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def table(measured: Mapping[str, Any]) -> str:
    """Return figures as a Markdown table; tables among them become one row each."""
    rows = []
    for name, value in measured.items():
        shown = (
            ", ".join(f"{key} {n:,}" for key, n in sorted(value.items()))
            if isinstance(value, dict)
            else f"{value:,}"
        )
        rows.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(["| | |", "|---|---:|", *rows])


def main(measured: Path, document: Path) -> None:
    """Replace the tables of the parts that were measured."""
    text = document.read_text(encoding="utf-8")
    for name in ("delivery", "load"):
        path = measured / f"hub_{name}.json"
        if path.exists():
            new = table(json.loads(path.read_text(encoding="utf-8")))
            pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
            text, n = re.subn(
                pattern, lambda found, new=new: found[1] + new + "\n" + found[2], text, flags=re.DOTALL
            )
            assert n == 1, f"{document}: expected one mark {name}, found {n}"
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
