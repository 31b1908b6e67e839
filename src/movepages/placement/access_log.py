"""A profiler's log of accesses, as CSV or JSON lines, read into an `AccessLog`.

CSV begins with a line of names: `pid`, `address`, `count`, and `node` or `cpu`, in any order; other
columns are left alone. JSON lines has an object on each line with these members. An address is
hexadecimal, with or without 0x, or in JSON a number. Nothing is taken on trust: what does not make
sense is refused with its line and field.

Chunks of lines are read column by column; only one that cannot be read so is gone through line by
line, to find what is wrong with it.
"""

from __future__ import annotations

import re
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from movepages.errors import MalformedError
from movepages.values import NO_NODE, AccessLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_CHUNK_LINES = 1 << 16
_HIGHEST_ID = (1 << 16) - 1
"""Above any node or CPU number that a kernel can be built for."""
_MOST_COUNT = 1 << 40
"""So many lines of that count fit into 64 bits that no log has more."""
_DECIMAL = re.compile(r"[0-9]+", re.ASCII)
_HEXADECIMAL = re.compile(r"(?:0[xX])?[0-9a-fA-F]+", re.ASCII)
_LIMITS: dict[str, tuple[int, int]] = {
    "pid": (1, (1 << 31) - 1),
    "address": (0, (1 << 64) - 1),
    "node": (0, _HIGHEST_ID),
    "cpu": (0, _HIGHEST_ID),
    "count": (0, _MOST_COUNT),
}
_DTYPES: dict[str, type[np.generic]] = {"address": np.uint64, "count": np.int64}
"""Of the other fields it is int32."""
_CHARACTERS = {
    False: frozenset("0123456789 \t\r"),
    True: frozenset("0123456789abcdefABCDEFxX \t\r"),
}
"""What a decimal field may be written with, and a hexadecimal one."""


def read_access_log(data: bytes, name: str = "log") -> AccessLog:
    """Read a log of either format. Raises MalformedError, which names the file `name`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MalformedError(name, line, "text", "it is not UTF-8") from None
    if text.lstrip().startswith("{"):
        return _read_json_lines(text, name)
    return _read_csv(text, name)


def _read_csv(text: str, name: str) -> AccessLog:
    header, _, body = text.partition("\n")
    names = [field.strip().lower() for field in header.split(",")]
    by = _accessor(names, name)
    lines = body.split("\n")
    chunks = [
        _columns(lines[first : first + _CHUNK_LINES], names, by, name, first + 2)
        for first in range(0, len(lines), _CHUNK_LINES)
    ]
    pid, address, accessor, count = (np.concatenate(column) for column in zip(*chunks, strict=True))
    unknown = np.full(len(pid), NO_NODE, np.int32)
    node, cpu = (accessor, unknown) if by == "node" else (unknown, accessor)
    return AccessLog(pid, address, node, cpu, count)


def _accessor(names: Sequence[str], name: str) -> str:
    """Return which of node and cpu a CSV has. Raises MalformedError for a header without."""
    for needed in ("pid", "address", "count"):
        if needed not in names:
            raise MalformedError(
                name,
                1,
                "header",
                f"there is no column {needed}; it must name pid, address, node or cpu, and count",
            )
    found = [word for word in ("node", "cpu") if word in names]
    if len(found) != 1:
        both = "both node and cpu" if found else "neither node nor cpu"
        raise MalformedError(name, 1, "header", f"it names {both}; name one of them")
    twice = [word for word in ("pid", "address", "count", *found) if names.count(word) > 1]
    if twice:
        raise MalformedError(name, 1, "header", f"it names {twice[0]} twice")
    return found[0]


def _columns(
    lines: Sequence[str], names: Sequence[str], by: str, name: str, first: int
) -> list[NDArray[Any]]:
    """Return pid, address, node or cpu, and count of some lines, the first numbered `first`."""
    wanted = [(field, names.index(field)) for field in ("pid", "address", by, "count")]
    filled = [line for line in lines if line and line != "\r"]
    texts = ",".join(filled).split(",") if filled else []
    try:
        _require_commas(filled, len(names) - 1)
        return [_array(field, _numbers(field, texts[at :: len(names)])) for field, at in wanted]
    except (ValueError, OverflowError):
        _refuse_lines(lines, names, wanted, name, first)
        raise


def _require_commas(lines: Sequence[str], commas: int) -> None:
    """Raise ValueError where a line has another number of them."""
    if not {commas}.issuperset(map(str.count, lines, repeat(","))):
        raise ValueError


def _numbers(field: str, texts: Sequence[str]) -> list[int]:
    """Read a column. Raises ValueError where something in it is no number."""
    hexadecimal = field == "address"
    # int() takes more than is meant here: signs, underscores, the digits of other scripts
    if not _CHARACTERS[hexadecimal].issuperset("".join(texts)):
        raise ValueError
    return [int(text, 16) for text in texts] if hexadecimal else [int(text) for text in texts]


def _array(field: str, numbers: Sequence[int]) -> NDArray[Any]:
    """Return an array of a field. Raises ValueError or OverflowError for what it cannot be."""
    array = np.array(numbers, dtype=_DTYPES.get(field, np.int32))
    lowest, highest = _LIMITS[field]
    if len(array) and not lowest <= int(array.min()) <= int(array.max()) <= highest:
        raise ValueError
    return array


def _refuse_lines(
    lines: Sequence[str],
    names: Sequence[str],
    wanted: Sequence[tuple[str, int]],
    name: str,
    first: int,
) -> None:
    """Find the line that makes no sense. Raises MalformedError."""
    for number, line in enumerate(lines, first):
        texts = [text.strip(" \t\r") for text in line.split(",")]
        if texts == [""]:
            continue
        if len(texts) != len(names):
            raise MalformedError(
                name, number, "line", f"it has {len(texts)} fields, the header {len(names)}"
            )
        for field, at in wanted:
            _refuse_text(field, texts[at], name, number)


def _refuse_text(field: str, value: str | int, name: str, number: int) -> None:
    """Refuse what is no number, or not one that a field can be. Raises MalformedError."""
    pattern, base = (_HEXADECIMAL, 16) if field == "address" else (_DECIMAL, 10)
    if isinstance(value, str) and not pattern.fullmatch(value):
        kind = "an address in hexadecimal" if field == "address" else "a number"
        raise MalformedError(name, number, field, f"{value!r} is not {kind}")
    lowest, highest = _LIMITS[field]
    if not lowest <= (int(value, base) if isinstance(value, str) else value) <= highest:
        raise MalformedError(name, number, field, f"{value} is not within {lowest} to {highest}")


class _Line(msgspec.Struct):
    """A line of JSON; one of node and cpu."""

    pid: int
    address: str | int
    count: int
    node: int | None = None
    cpu: int | None = None


_DECODER = msgspec.json.Decoder(_Line)


def _read_json_lines(text: str, name: str) -> AccessLog:
    try:
        lines = _DECODER.decode_lines(text)
        return _of_json(lines)
    except (msgspec.DecodeError, ValueError, OverflowError):
        _refuse_json(text, name)
        raise


def _of_json(lines: Sequence[_Line]) -> AccessLog:
    """Return the log of some lines. Raises ValueError or OverflowError for what makes no sense."""
    if any((line.node is None) is (line.cpu is None) for line in lines):
        raise ValueError
    return AccessLog(
        _array("pid", [line.pid for line in lines]),
        _array("address", [_address(line.address) for line in lines]),
        _sparse("node", [line.node for line in lines]),
        _sparse("cpu", [line.cpu for line in lines]),
        _array("count", [line.count for line in lines]),
    )


def _sparse(field: str, numbers: Sequence[int | None]) -> NDArray[Any]:
    """Return an array of a field that not every line has. Raises as `_array` does."""
    array = np.full(len(numbers), NO_NODE, np.int32)
    there = np.array([number is not None for number in numbers], dtype=np.bool_)
    array[there] = _array(field, [number for number in numbers if number is not None])
    return array


def _address(value: str | int) -> int:
    if isinstance(value, int):
        return value
    if not _HEXADECIMAL.fullmatch(value):
        raise ValueError
    return int(value, 16)


def _refuse_json(text: str, name: str) -> None:
    """Find the line that makes no sense. Raises MalformedError."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = _DECODER.decode(line)
        except msgspec.ValidationError as error:
            problem, _, field = str(error).partition(" - at `$.")
            raise MalformedError(name, number, field.rstrip("`") or "line", problem) from None
        except msgspec.DecodeError as error:
            raise MalformedError(name, number, "JSON", str(error)) from None
        if (found.node is None) is (found.cpu is None):
            said = "neither node nor cpu" if found.node is None else "both node and cpu"
            raise MalformedError(name, number, "line", f"it has {said}; give one of them")
        for field in ("pid", "address", "node", "cpu", "count"):
            value = getattr(found, field)
            if value is not None:
                _refuse_text(field, value, name, number)
