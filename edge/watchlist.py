"""Watchlist: the queries of one deployment, compiled to codes (watchlist.json). FORMAT_VERSION = 2.

The form for people, watchlist.txt, and its grammar are in edge.query_grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge import require
from edge.bundle import require_code_space
from edge.codes import pack
from edge.durable import write_file
from edge.errors import CodeSpaceError, WatchlistError
from edge.query import Kind, Query, QueryPart
from edge.query_grammar import parse_lines
from edge.utf8 import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMAT_VERSION",
    "Kind",
    "Query",
    "QueryPart",
    "Watchlist",
    "compile_watchlist",
    "format_watchlist",
    "load_watchlist",
    "parse_text",
    "read_watchlist",
    "write_watchlist",
]

FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Watchlist:
    """Compiled queries with the code space that their codes belong to.

    bundle: name and version of the bundle that compiled it, for people. Raises WatchlistError when a query
    has no code, a code of another width, or a name that another has.
    """

    code_space: str
    code_bits: int
    bundle: str
    queries: tuple[Query, ...]

    def __post_init__(self) -> None:
        require.text(WatchlistError, "code_space", self.code_space)
        require.one_of(WatchlistError, "code_bits", self.code_bits, (64, 128, 192, 256))
        require.text(WatchlistError, "bundle", self.bundle, may_be_empty=True)
        require.instance(WatchlistError, "queries", self.queries, (tuple,))
        for i, query in enumerate(self.queries):
            require.text(WatchlistError, f"queries[{i}].text", query.text)  # the path of an example too
            _require_width(f"queries[{i}]", query, self.code_bits)
            for n, part in enumerate(query.parts):
                _require_width(f"queries[{i}].parts[{n}]", part, self.code_bits)
            if query.parts and query.code != query.parts[0].code:
                raise WatchlistError(f"queries[{i}].code: expected that of its first part, found another")
            if any(query.name == other.name for other in self.queries[:i]):
                raise WatchlistError(
                    f"queries[{i}].name: expected a name of its own, found {query.name!r} twice"
                )


def _require_width(at: str, coded: Query | QueryPart, code_bits: int) -> None:
    """Require a code of a width, and logits of it where there are any."""
    if coded.code is None or len(coded.code) * 8 != code_bits:
        found = "none" if coded.code is None else f"{len(coded.code) * 8} bits"
        raise WatchlistError(f"{at}.code: expected {code_bits} bits, found {found}")
    if coded.logits is not None and len(coded.logits) != code_bits:
        found = f"{len(coded.logits)} numbers"
        raise WatchlistError(f"{at}.logits: expected {code_bits} numbers, found {found}")


def parse_text(path: Path) -> list[Query]:
    """Return the queries of a watchlist.txt, not compiled.

    Raises WatchlistError "file:line: expected ..., found ...; what to do".
    """
    return parse_lines(_read(path), Path(path))


def load_watchlist(
    path: Path, code_space: str | None = None, code_bits: int | None = None
) -> Watchlist | list[Query]:
    """Return a compiled Watchlist where the content starts with `{`, else the queries of a text list.

    code_space, code_bits: what a compiled list must have, where given. Errors of read_watchlist, parse_text.
    """
    content = _read(path)
    if content.lstrip().startswith("{"):
        return _parse_compiled(content, path, code_space, code_bits)
    return parse_lines(content, Path(path))


def read_watchlist(path: Path, code_space: str | None = None, code_bits: int | None = None) -> Watchlist:
    """Return a compiled watchlist.json.

    Raises WatchlistError for another version, a missing key or an impossible value, CodeSpaceError for
    another code space or width than asked for.
    """
    return _parse_compiled(_read(path), path, code_space, code_bits)


def compile_watchlist(
    queries: Iterable[Query],
    encode_text: Callable[[str], NDArray[Any] | Sequence[float]],
    encode_sound: Callable[[Path], NDArray[Any] | Sequence[float]] | None,
    code_space: str,
    code_bits: int,
    bundle: str = "",
    encode_image: Callable[[Path], NDArray[Any] | Sequence[float]] | None = None,
) -> Watchlist:
    """Return the queries with codes and logits (rounded to 4 decimals) from the encoders of one code space.

    encode_text, encode_sound, encode_image: sentence or path -> logits [code_bits]. Raises WatchlistError for an example
    that no encoder is given for, CodeSpaceError for logits of another width or not finite.
    """
    compiled: list[Query] = []
    for query in queries:
        parts = tuple(
            QueryPart(part.text, *_packed(encode_text(part.text), code_bits, query.name))
            for part in query.parts
        )
        if parts:
            code, logits = parts[0].code, parts[0].logits
        elif query.kind == "text":
            code, logits = _packed(encode_text(query.text), code_bits, query.name)
        elif query.kind == "sound" and encode_sound is not None:
            code, logits = _packed(encode_sound(Path(query.text)), code_bits, query.name)
        elif query.kind == "image" and encode_image is not None:
            code, logits = _packed(encode_image(Path(query.text)), code_bits, query.name)
        else:
            raise WatchlistError(
                f"query {query.name!r}: expected a sentence, found {query.kind}: {query.text}; "
                f"this bundle has no {query.kind} encoder that could compile it"
            )
        compiled.append(replace(query, text=shown(query.text), code=code, logits=logits, parts=parts))
    return Watchlist(code_space, code_bits, bundle, tuple(compiled))


def _packed(
    raw: NDArray[Any] | Sequence[float], code_bits: int, name: str
) -> tuple[bytes, tuple[float, ...]]:
    """Return the code and the rounded logits of a query. Raises CodeSpaceError for another width or what is not finite."""
    logits = np.asarray(raw, dtype=np.float32)
    if logits.shape != (code_bits,):
        raise CodeSpaceError(f"query {name!r}: expected {code_bits} logits, found shape {logits.shape}")
    try:
        code = pack(logits, code_bits).tobytes()
    except CodeSpaceError as error:
        raise CodeSpaceError(f"query {name!r}: {error}") from error
    return code, tuple(round(float(value), 4) for value in logits)


def format_watchlist(watchlist: Watchlist) -> bytes:
    """Return the bytes of watchlist.json: UTF-8, one query a line, codes in hexadecimal."""
    head = {
        "format_version": FORMAT_VERSION,
        "code_space": watchlist.code_space,
        "code_bits": watchlist.code_bits,
        "bundle": watchlist.bundle,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    queries = [
        json.dumps(_query_to_json(query), ensure_ascii=False, allow_nan=False) for query in watchlist.queries
    ]
    body = ",\n".join(queries)
    return ("{\n" + "\n".join(lines) + '\n"queries": [\n' + body + "\n]\n}\n").encode("utf-8")


def write_watchlist(path: Path, watchlist: Watchlist) -> None:
    """Write a compiled watchlist.json, whole or not at all."""
    try:
        write_file(Path(path), format_watchlist(watchlist))
    except OSError as error:
        raise WatchlistError(
            f"{path}: expected a file that can be written, found {error.strerror or error}"
        ) from error


def _read(path: Path) -> str:
    """Return the content of a watchlist, without a byte order mark."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise WatchlistError(f"{path}: expected a watchlist, found {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"byte 0x{content[error.start]:02x}"
        raise WatchlistError(
            f"{path}:{line}: expected UTF-8, found {found}; save the file as UTF-8"
        ) from error


def _query_to_json(query: Query) -> dict[str, Any]:
    record = {each.name: getattr(query, each.name) for each in fields(Query)}
    parts = [
        {"text": part.text, "code": None if part.code is None else part.code.hex(), "logits": part.logits}
        for part in query.parts
    ]
    return {**record, "code": None if query.code is None else query.code.hex(), "parts": parts}


def _parse_compiled(content: str, path: Path, code_space: str | None, code_bits: int | None) -> Watchlist:
    """Return the compiled list in a JSON text, of the asked code space and width."""
    file = str(path)
    try:
        root = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WatchlistError(f"{file}: expected a compiled watchlist in JSON, found {error}") from error
    todo = "compile it again from its watchlist.txt"
    require.version(WatchlistError, file, root, FORMAT_VERSION, todo)
    root = require.keys(
        WatchlistError, file, root, ("format_version", "code_space", "code_bits", "bundle", "queries")
    )
    if code_space is not None:
        require_code_space(code_space, str(root["code_space"]), "watchlist", file)
    if code_bits is not None and root["code_bits"] != code_bits:
        raise CodeSpaceError(
            f"{file}: expected codes of {code_bits} bits, found {root['code_bits']!r}; {todo}"
        )
    try:
        require.instance(WatchlistError, "queries", root["queries"], (list,))
        queries = tuple(_query_from_json(item, f"queries[{i}]") for i, item in enumerate(root["queries"]))
        return Watchlist(root["code_space"], root["code_bits"], root["bundle"], queries)
    except WatchlistError as error:
        raise WatchlistError(f"{file}: {error}; {todo}") from error


def _query_from_json(item: object, at: str) -> Query:
    names = [each.name for each in fields(Query)]
    found: Mapping[str, Any] = require.keys(WatchlistError, at, item, names)
    values = {name: found[name] for name in names}
    values["code"] = _code_from_json(values["code"], f"{at}.code")
    for key in ("logits", "confirm"):
        if isinstance(values[key], list):
            values[key] = tuple(values[key])
    require.instance(WatchlistError, f"{at}.parts", values["parts"], (list,))
    values["parts"] = tuple(
        _part_from_json(part, f"{at}.parts[{i}]") for i, part in enumerate(values["parts"])
    )
    try:
        return Query(**values)
    except WatchlistError as error:
        raise WatchlistError(f"{at}.{error}") from error


def _part_from_json(item: object, at: str) -> QueryPart:
    found = require.keys(WatchlistError, at, item, ("text", "code", "logits"))
    logits = tuple(found["logits"]) if isinstance(found["logits"], list) else found["logits"]
    try:
        return QueryPart(found["text"], _code_from_json(found["code"], f"{at}.code"), logits)
    except WatchlistError as error:
        raise WatchlistError(f"{at}.{error}") from error


def _code_from_json(value: Any, at: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise require.wrong(WatchlistError, at, "hexadecimal digits", value) from error
