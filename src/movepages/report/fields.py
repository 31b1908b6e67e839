"""Every field that a face shows: its name with the unit in it, its title, and how it is written.

A field's name is the attribute it is read from and its key in JSON; `show` writes the value for a
person, `encode` for JSON. Tables and JSON are made from these alone, so they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from movepages.nodeset import NodeSet
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """A field: `name` is its attribute and JSON key, `title` heads its column.

    `right` aligns it to the right, `minimum` columns are kept for it in a stream of rows. Where
    lines are too long, `shorten` cuts a cell to the given width (None: this field is never cut).
    `pieces` divides a cell into texts with rich's styles, for a terminal.
    """

    name: str
    title: str
    unit: str
    show: Callable[[Any], str] = str
    encode: Callable[[Any], Any] = _same
    right: bool = False
    minimum: int = 0
    shorten: Callable[[str, int], str] | None = None
    pieces: Callable[[str], list[tuple[str, str]]] | None = None


def hexadecimal(address: int) -> str:
    """Write an address as /proc/PID/maps does: `7f12a4000000`."""
    return f"{address:x}"


def address_span(addresses: tuple[int, ...]) -> str:
    """Write an address, or a start and an end: `7f12a4000000-7f12a4400000`."""
    return "-".join(hexadecimal(address) for address in addresses)


def json_address(address: int) -> str:
    """Write an address for JSON, as a string: above 2**53 many readers of JSON round numbers."""
    return f"0x{address:x}"


def node_sizes(bytes_by_node: Mapping[int, int]) -> str:
    """Write where memory is: `0` if all on one node, else `0:6.00G 1:2.05G`, most first."""
    if len(bytes_by_node) < 2:
        return "".join(str(node) for node in bytes_by_node) or "-"
    most_first = sorted(bytes_by_node.items(), key=lambda item: (-item[1], item[0]))
    return " ".join(f"{node}:{format_size(size)}" for node, size in most_first)


def node_keys(by_node: Mapping[int, Any]) -> dict[str, Any]:
    """Return a mapping by node with the nodes as strings, for keys of JSON are strings."""
    return {str(node): by_node[node] for node in sorted(by_node)}


def known_node(node: int) -> str:
    """Write a node, or `-` for one that is not known."""
    return str(node) if node >= 0 else "-"


def known_count(number: int | None) -> str:
    """Write how many there are, or `-` where that is not known."""
    return "-" if number is None else count(number)


def number_ranges(numbers: Iterable[int]) -> str:
    """Write CPUs or nodes as the kernel does: `0-3,8`, or `-` for none."""
    return str(NodeSet(numbers)) or "-"


def count(number: int) -> str:
    """Write a number with its thousands apart: `16,384`."""
    return f"{number:,}"


def node_colour(node: int) -> str:
    """Return the colour in which a node is shown, in rich's words."""
    return _COLOURS[node % len(_COLOURS)]


def counted(number: int, noun: str) -> str:
    """Write how many of something there are: `1 page`, `16,384 pages`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def or_dash(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a writer that writes `-` for what is not there (None or 0)."""
    return lambda value: show(value) if value else "-"


def shorten_middle(text: str, width: int) -> str:
    """Cut a text in its middle, where both ends tell something: `weighted …leave:0-2`."""
    if len(text) <= width:
        return text
    if width < 3:
        return text[-width:] if width else ""
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def shorten_path(text: str, width: int) -> str:
    """Cut a path at its front, for its end tells more: `…/libpython3.11.so`."""
    if len(text) <= width:
        return text
    return f"…{text[len(text) - width + 1 :]}" if width > 1 else text[len(text) - width :]


def shorten_list(text: str, width: int, separator: str = " ") -> str:
    """Leave out words at the end and say how many: `0:6.00G 1:2.05G +6`."""
    words = text.split(separator)
    for kept in range(len(words) - 1, 0, -1):
        if len(text) <= width:
            break
        text = separator.join([*words[:kept], f"+{len(words) - kept}"])
    return text


def printable(text: str) -> str:
    r"""Return a text from the kernel so that it cannot harm a terminal: `\x1b` for an escape.

    Names of files and processes may hold any byte, newlines and invalid UTF-8 among them.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def path_or_anonymous(path: str) -> str:
    """Write what a mapping maps; anonymous memory has no name of its own."""
    return printable(path) or "(anonymous)"


def percent(share: float) -> str:
    """Write a share of 0 to 1 in percent; what is there is never 0%, nor all unless it is."""
    rounded = round(share * 100)
    if rounded == 0 and share > 0:
        return "<1%"
    if rounded == 100 and share < 1:
        return ">99%"
    return f"{rounded}%"


def known_share(share: float | None) -> str:
    """Write a share in percent, or `-` for one that is not known."""
    return "-" if share is None else percent(share)


def known_distance(distance: float | None) -> str:
    """Write a mean distance, or `-` for one that is not known."""
    return "-" if distance is None else f"{distance:.1f}"


def cpu_time(time_ns: int) -> str:
    """Write a time on CPUs, given in nanoseconds: `0.42s`, `12.5s`, `7:03`, `2:05:00`."""
    seconds = time_ns / 1e9
    if seconds < 60:
        return f"{seconds:.2f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def strip_pieces(text: str) -> list[tuple[str, str]]:
    """Give each character of a strip the colour of its node, as bars have it."""
    return [
        ("".join(marks), node_colour(int(mark, 36)) if mark.isalnum() else "dim")
        for mark, marks in groupby(text)
    ]


def _address(name: str, title: str) -> Field:
    return Field(name, title, "address", hexadecimal, json_address, minimum=12)


def _size(name: str, title: str) -> Field:
    return Field(name, title, "bytes", format_size, right=True, minimum=len(title))


def _count(name: str, title: str, unit: str) -> Field:
    return Field(name, title, unit, count, right=True, minimum=len(title))


def _measure(name: str, title: str, unit: str) -> Field:
    return Field(name, title, unit, or_dash(count), right=True)


FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        # a node
        Field("id", "NODE", "node", right=True),
        Field("node", "NODE", "node", right=True),
        Field(
            "cpus",
            "CPUS",
            "list of CPUs",
            number_ranges,
            list,
            shorten=partial(shorten_list, separator=","),
        ),
        _size("memory_bytes", "MEMORY"),
        _size("free_bytes", "FREE"),
        Field("has_memory", "HAS MEMORY", "boolean"),
        Field("tier", "TIER", "memory tier, smaller is faster", or_dash(str), right=True),
        Field("weight", "WEIGHT", "weighted-interleave weight", or_dash(str), right=True),
        Field("distances", "DISTANCES", "distance by node, 10 is local", str, node_keys),
        Field("remark", "", "phrase"),
        # what HMAT or CXL say of a node's memory
        Field("access_class", "CLASS", "0: any initiator, 1: CPUs", right=True),
        Field("initiators", "SEEN FROM", "list of nodes", number_ranges, list),
        _measure("read_latency_ns", "READ ns", "nanoseconds"),
        _measure("write_latency_ns", "WRITE ns", "nanoseconds"),
        _measure("read_bandwidth_mib_per_s", "READ MiB/s", "MiB per second"),
        _measure("write_bandwidth_mib_per_s", "WRITE MiB/s", "MiB per second"),
        # a pool of huge pages
        Field(
            "page_size_bytes",
            "PAGE",
            "bytes",
            or_dash(format_size),
            right=True,
            minimum=len("PAGE"),
        ),
        Field("total", "POOL", "huge pages", count, right=True),
        Field("free", "FREE", "huge pages", count, right=True),
        Field("surplus", "SURPLUS", "huge pages", count, right=True),
        # a mapping
        _address("start", "START"),
        _address("end", "END"),
        _size("size_bytes", "SIZE"),
        _size("resident_bytes", "RESIDENT"),
        Field("policy", "POLICY", "the kernel's words", shorten=shorten_middle, minimum=7),
        Field(
            "bytes_by_node",
            "NODES",
            "bytes by node",
            node_sizes,
            node_keys,
            shorten=shorten_list,
            minimum=5,
        ),
        Field("permissions", "PERM", "rwx, and p private or s shared"),
        Field("kind", "KIND", "heap, stack, anon, shm, huge, file or special"),
        Field("path", "MAPPING", "path", path_or_anonymous, shorten=shorten_path),
        Field("along", "ALONG IT", "nodes, a character for each part", pieces=strip_pieces),
        # mappings together
        Field("group", "GROUP", "kind or path", printable, shorten=shorten_path),
        _count("mapping_count", "MAPPINGS", "mappings"),
        # a thread
        Field("tid", "TID", "thread id", right=True),
        Field("thread", "THREAD", "name", printable),
        Field("cpu", "CPU", "CPU it ran on last", right=True),
        Field("cpu_time_ns", "CPU TIME", "nanoseconds", cpu_time, right=True),
        Field("near_share", "NEAR", "share of the memory, 0 to 1", known_share, right=True),
        Field("mean_distance", "DISTANCE", "mean distance, 10 is near", known_distance, right=True),
        # processes side by side
        Field("process", "PROCESS", "name and pid", printable, shorten=shorten_middle),
        # a file or a segment
        Field("file", "FILE", "path", printable, shorten=shorten_path),
        Field("segment", "SEGMENT", "name or path", printable, shorten=shorten_path),
        Field("owner", "OWNER", "user", printable),
        Field("attached", "USERS", "attaches", known_count, right=True),
        # what is to be moved
        Field("from_node", "FROM", "node, or negative errno", known_node, right=True),
        Field("to_node", "TO", "node", right=True),
        Field("reason", "WHY", "phrase", printable, shorten=shorten_middle),
        # the status of pages
        _address("address", "ADDRESS"),
        Field("span", "ADDRESS", "address, or start and end", address_span, minimum=25),
        _count("pages", "PAGES", "pages"),
        Field("status", "CODE", "node, or negative errno", right=True),
        Field("name", "STATUS", "node, or name of an errno", minimum=7),
        Field("meaning", "MEANING", "phrase"),
        Field("cause", "CAUSE", "sentence"),
        Field("remedy", "REMEDY", "sentence"),
        # what was tried
        Field("answer", "", "yes, note or no", str, str),
        Field("says", "", "sentence"),
        Field(
            "call",
            "CALL",
            "system calls",
            shorten=partial(shorten_list, separator=", "),
        ),
        Field("error", "ERROR", "name of an errno"),
        Field("outcome", "OUTCOME", "what became of pages"),
        # before and after
        _size("before_bytes", "BEFORE"),
        _size("after_bytes", "AFTER"),
        _size("planned_bytes", "PLANNED"),
    )
}


def fields(*names: str) -> tuple[Field, ...]:
    """Return the fields of these names, in this order. Raises KeyError."""
    return tuple(FIELDS[name] for name in names)


def encode(value: Any, chosen: Iterable[Field]) -> dict[str, Any]:
    """Return a value's fields for JSON."""
    return {field.name: field.encode(getattr(value, field.name)) for field in chosen}
