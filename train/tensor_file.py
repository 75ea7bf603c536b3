"""Tensors with notes as one safetensors file whose bytes follow from what is in it, so that its sha256 can name what was made from it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically: the same bytes for the same tensors and metadata.

    The library shuffles the metadata of each file. Layout: github.com/huggingface/safetensors, 8 bytes for the length of a JSON header,
    the header, the tensors at offsets from its end.
    """
    content = save(
        {name: value.detach().contiguous().cpu() for name, value in tensors.items()}, dict(metadata)
    )
    end = 8 + int.from_bytes(content[:8], "little")
    places = json.loads(content[8:end])
    del places["__metadata__"]
    header = {"__metadata__": dict(sorted(metadata.items())), **dict(sorted(places.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text + content[end:])
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
