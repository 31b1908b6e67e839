"""Read the kernel's text files so that absence, refusal and a vanishing process are told apart.

A process can end while one of its files is read. The kernel then ends the file early, without an
error (seq_file stops when the mm is gone), so the text alone cannot be trusted: after the read the
process must still be the one it was before. The same happens when it starts another program
(execve), for the old mm goes then; the text is read again. `read_process_texts` sees to both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.abi import Errno
from movepages.errors import (
    CallError,
    MalformedError,
    NoSuchProcessError,
    NotPermittedError,
    UnsupportedError,
    call_error,
    no_such_process,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path("/")

HIGHEST_ID = (1 << 16) - 1
"""Above any node or CPU number that a kernel can be built for."""

_ATTEMPTS = 4
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_OCTAL = re.compile(r"\\([0-7]{3})")

# Fields of /proc/PID/stat counted from the state, which follows the name in parentheses (proc(5)).
_FLAGS, _START_TIME, _START_CODE, _START_STACK = 6, 19, 23, 25
STATE, USER_TIME, SYSTEM_TIME, PROCESSOR = 0, 11, 12, 36
_PF_EXITING = 0x4  # include/linux/sched.h


def read_text(path: Path) -> str:
    """Return a file's text. Paths in the kernel may hold any byte: those survive as surrogates."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def read_optional(path: Path) -> str | None:
    """Return a file's text without white space around it, or None where there is no such file."""
    try:
        return read_text(path).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_number(path: Path) -> int:
    """Return the number that a file holds. Raises MalformedError."""
    return parse_number(read_text(path).strip(), path, 0, "value")


def read_optional_number(path: Path) -> int | None:
    """Return the number that a file holds, or None where there is no such file."""
    text = read_optional(path)
    return None if text is None else parse_number(text, path, 0, "value")


def read_counters(path: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number on each line.

    Raises MalformedError.
    """
    counters: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, blank, count = line.partition(" ")
        if not blank:
            raise MalformedError(path, number, name or "line", "there is no number behind it")
        counters[name] = parse_number(count, path, number, name)
    return counters


def parse_number(text: str, path: Path, line: int, field: str, base: int = 10) -> int:
    """Return the number that a field holds. Raises MalformedError naming path, line and field."""
    try:
        number = int(text, base)
    except ValueError:
        raise MalformedError(path, line, field, f"{text!r} is not a number") from None
    if "_" in text or not text.isascii():  # Python's int() takes more than the kernel writes
        raise MalformedError(path, line, field, f"{text!r} is not a number")
    return number


def parse_list(text: str, path: Path, line: int = 1, field: str = "list") -> tuple[int, ...]:
    """Return the numbers of a list of nodes or CPUs, such as `0-2,5`; an empty text has none.

    Raises MalformedError (bitmap_print_to_pagebuf in lib/bitmap-str.c writes them rising).
    """
    numbers: list[int] = []
    for word in text.strip().split(",") if text.strip() else ():
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not (numbers[-1] if numbers else -1) < first <= last <= HIGHEST_ID:
            raise MalformedError(
                path, line, field, f"{word!r} does not belong in a rising list like 0-2,5"
            )
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def unescape(text: str, characters: str) -> str:
    r"""Undo the octal escapes (`\040`) of the characters that a file is known to escape.

    seq_path() never escapes the backslash itself unless asked to, so `\101` is a name, not an A.
    """
    if "\\" not in text:
        return text
    return _OCTAL.sub(
        lambda match: char if (char := chr(int(match[1], 8))) in characters else match[0], text
    )


def process_directory(pid: int, root: Path = ROOT) -> Path:
    """Return /proc/PID, or /proc/self for pid 0."""
    return root / "proc" / (str(pid) if pid else "self")


def start_ticks(pid: int, root: Path = ROOT) -> int:
    """Return when a process started, in clock ticks since boot; with the pid it names a process.

    Raises NoSuchProcessError, also for a zombie: it has no memory left to look at.
    """
    path = process_directory(pid, root) / "stat"
    return parse_number(_living_stat(pid, root)[_START_TIME], path, 1, "starttime")


def living_program(pid: int, root: Path = ROOT) -> tuple[str, ...]:
    """Return what tells a process and its program from all others; execve changes it.

    Raises NoSuchProcessError as start_ticks does.
    """
    fields = _living_stat(pid, root)
    return fields[_START_TIME], *_program(fields)


def stat_fields(text: str, path: Path) -> list[str]:
    """Return the fields of a /proc/PID/stat line from the state on. Raises MalformedError.

    The name before them may hold blanks and parentheses of its own.
    """
    fields = text[text.rfind(")") + 1 :].split()
    if ")" not in text or len(fields) <= PROCESSOR:
        raise MalformedError(path, 1, "line", "it is too short for a stat line")
    return fields


def read_process_text(pid: int, name: str, root: Path = ROOT) -> str:
    """Return the whole text of a file of a process, such as `numa_maps`.

    Raises NoSuchProcessError if it does not exist or ended during the read, NotPermittedError,
    UnsupportedError where the kernel does not have the file.
    """
    return read_process_texts(pid, (name,), root)[0]


def read_process_texts(pid: int, names: Sequence[str], root: Path = ROOT) -> list[str]:
    """Return the whole texts of some files, all of the same program of the same process.

    A task without memory, such as a kernel thread, has empty texts. Raises as read_process_text.
    """
    for _ in range(_ATTEMPTS):
        before = _living_stat(pid, root)
        texts = [_memory_text(pid, name, root) for name in names]
        after = _living_stat(pid, root)
        if after[_START_TIME] != before[_START_TIME]:
            raise no_such_process(pid, f"read {process_directory(pid, root)}")
        if _program(after) == _program(before):
            return texts
    raise call_error(
        -Errno.ESRCH,
        f"read {process_directory(pid, root)}",
        detail=f"process {pid} starts another program each time it is read; try again later",
        pid=pid,
    )


def read_process_record(pid: int, name: str, root: Path = ROOT) -> str:
    """Return a file that the kernel prints in one go, such as `status`; zombies have these too.

    Raises NoSuchProcessError, NotPermittedError, UnsupportedError.
    """
    directory = process_directory(pid, root)
    try:
        return read_text(directory / name)
    except ProcessLookupError:
        raise no_such_process(pid, f"read {directory / name}") from None
    except FileNotFoundError:
        if not (directory / "stat").exists():
            raise no_such_process(pid, f"read {directory / name}") from None
        raise UnsupportedError(
            f"this kernel has no {directory / name}; it is built without that interface"
        ) from None
    except PermissionError:
        raise not_permitted(pid, directory / name) from None


def not_permitted(pid: int, path: Path) -> CallError:
    """Build the error for a file of a process that may not be read."""
    return NotPermittedError(
        Errno.EPERM,
        f"process {pid} is not yours to look at ({path}); run as its owner or as root",
        call="open",
        pid=pid,
        arguments={"path": str(path)},
    )


def _memory_text(pid: int, name: str, root: Path) -> str:
    try:
        return read_process_record(pid, name, root)
    except NoSuchProcessError:
        # Newer kernels answer ESRCH for a task that lives but has no memory, older ones no text.
        _living_stat(pid, root)
        return ""


def _living_stat(pid: int, root: Path) -> list[str]:
    path = process_directory(pid, root) / "stat"
    fields = stat_fields(read_process_record(pid, "stat", root), path)
    flags = parse_number(fields[_FLAGS], path, 1, "flags")
    if fields[STATE] in "ZX" or flags & _PF_EXITING:
        raise call_error(
            -Errno.ESRCH,
            f"read {path.parent}",
            detail=f"process {pid} has ended (its parent has not taken note yet); "
            "there is no memory left to look at",
            pid=pid,
        )
    return fields


def _program(fields: list[str]) -> tuple[str, str]:
    """Return what execve() changes: where code and stack start, as address randomisation has it."""
    return fields[_START_CODE], fields[_START_STACK]
