"""/proc/PID/maps: the mappings (VMAs) of a process. Source: show_map_vma in fs/proc/task_mmu.c."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from movepages.errors import MalformedError
from movepages.linux.reading import ROOT, process_directory, read_process_text, unescape

if TYPE_CHECKING:
    from pathlib import Path

_HEXADECIMAL = re.compile(r"[0-9a-f]+", re.IGNORECASE)


class MapsLine(NamedTuple):
    """A line of maps. Addresses and offset in bytes, the end excluded.

    `path` is as the kernel prints it: empty for anonymous memory, `[heap]`, `[anon:NAME]`, or a
    file's with ` (deleted)` behind it. (A tuple, for a frozen dataclass takes several
    times as long to make, and there may be a hundred thousand.)
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str


def read_maps(pid: int, root: Path = ROOT) -> list[MapsLine]:
    """Return the mappings of a process in rising order; a kernel thread has none.

    Raises NoSuchProcessError, NotPermittedError, MalformedError.
    """
    return parse_maps(read_process_text(pid, "maps", root), process_directory(pid, root) / "maps")


def parse_maps(text: str, path: Path) -> list[MapsLine]:
    """Return the lines of a maps file. Raises MalformedError; `path` is for its message."""
    lines = text.split("\n")  # not splitlines(): a name may hold what that takes for a line's end
    if lines.pop():
        raise MalformedError(path, len(lines) + 1, "line", "the file is cut short")
    parsed: list[MapsLine] = []
    below = 0
    for number, line in enumerate(lines, 1):
        try:
            addresses, permissions, offset, device, inode, *name = line.split(None, 5)
            first, _, last = addresses.partition("-")
            start, end = int(first, 16), int(last, 16)
            mapped = unescape(name[0], "\n") if name else ""
            parsed.append(
                MapsLine(start, end, permissions, int(offset, 16), device, int(inode), mapped)
            )
        except ValueError:
            raise _malformed(line, path, number) from None
        if start >= end or end <= below:
            raise MalformedError(path, number, "start", f"{addresses} is out of order")
        if start < below:
            _give_way(parsed)
        below = end
    return parsed


def _give_way(parsed: list[MapsLine]) -> None:
    """Let the last line stand where lines before it overlap.

    The kernel prints a page of text at a time and goes on behind the last end. A mapping that has
    grown downwards by then, or together with those before it, is printed with its new start.
    """
    newest = parsed.pop()
    while parsed and parsed[-1].start >= newest.start:
        parsed.pop()
    if parsed and parsed[-1].end > newest.start:
        parsed[-1] = parsed[-1]._replace(end=newest.start)
    parsed.append(newest)


def _malformed(line: str, path: Path, number: int) -> MalformedError:
    """Find out which field of a line is wrong."""
    words = line.split(None, 5)
    if len(words) < 5:
        return MalformedError(path, number, "line", f"{line!r} has less than five fields")
    start, _, end = words[0].partition("-")
    for field, word in (("start", start), ("end", end), ("offset", words[2])):
        if not _HEXADECIMAL.fullmatch(word):
            return MalformedError(path, number, field, f"{word!r} is not a hexadecimal number")
    return MalformedError(path, number, "inode", f"{words[4]!r} is not a number")
