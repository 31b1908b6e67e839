"""Capture what the kernel says of a machine's nodes as one text file, and unfold it again.

    python3 capture.py "Two sockets: maker and model" > two-sockets.txt

Needs the standard library only, so that the file can be taken to any machine. README.md has the
format of the text.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NODES = "sys/devices/system/node"
BLOCKS = "sys/devices/system/memory"
CAPTURED = (
    "proc/sys/kernel/numa_balancing",
    f"{BLOCKS}/block_size_bytes",
    NODES,
    "sys/devices/virtual/memory_tiering",
    "sys/kernel/mm/mempolicy/weighted_interleave",
    "sys/kernel/mm/numa",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
)
LEFT_OUT = re.compile(r"power|subsystem|uevent|cpumap|cpu[0-9]+|vmstat|memory_failure|demote\w*")
MEMORY_BLOCK = re.compile(r"memory([0-9]+)")
KEPT_OF_MEMINFO = re.compile(r"Mem|FilePages|AnonPages|Shmem:|HugePages_")
RUN = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


def fold(root: Path, about: str) -> str:
    """Return the machine below a root directory as text; `about` goes on top as comment."""
    comments = [f"# {line}" for line in about.splitlines()]
    entries = [entry for name in CAPTURED for entry in _entries(root / name, root)]
    blocks = [f"== {BLOCKS}/memory{run}/" for run in _block_runs(root / BLOCKS)]
    return "\n".join([*comments, *entries, *blocks, ""])


def unfold(text: str, root: Path) -> None:
    """Make the files, links and directories of a captured machine below a root directory."""
    for section in f"\n{text}".removesuffix("\n").split("\n== ")[1:]:
        head, _, content = section.partition("\n")
        name, _, target = head.partition(" -> ")
        for path, link in zip(_expand(name), _expand(target, like=name), strict=True):
            place = root / path
            if path.endswith("/"):
                place.mkdir(parents=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if link:
                place.symlink_to(link)
            else:
                place.write_text(f"{content}\n", encoding="utf-8")


def _entries(path: Path, root: Path) -> Iterator[str]:
    """Go through the entries below a path; what cannot be read (triggers) is left out."""
    name = path.relative_to(root)
    if path.is_symlink():
        yield f"== {name} -> {path.readlink()}"
    elif path.is_dir():
        children = {child.name for child in path.iterdir() if not LEFT_OUT.fullmatch(child.name)}
        blocks = {child for child in children if MEMORY_BLOCK.fullmatch(child)}
        for child in sorted(children - blocks, key=_by_number):
            yield from _entries(path / child, root)
        for run in _block_runs(path):
            yield f"== {name}/memory{run} -> ../../memory/memory{{}}"
    elif path.is_file() and path.stat().st_mode & 0o400:
        yield f"== {name}\n{_content(path)}"


def _content(path: Path) -> str:
    """Return a file's text without its last newline; of meminfo only the lines that tests use."""
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if path.name == "meminfo":
        lines = [line for line in lines if KEPT_OF_MEMINFO.match(line.split()[2])]
    return "\n".join(lines)


def _block_runs(directory: Path) -> list[str]:
    """Return the memory blocks in a directory as runs, such as `{0..23}`."""
    matches = (MEMORY_BLOCK.fullmatch(child.name) for child in directory.iterdir())
    return [f"{{{first}..{last}}}" for first, last in _runs(int(m[1]) for m in matches if m)]


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as (first, last) of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _expand(name: str, like: str = "") -> list[str]:
    """Return the names that `{A..B}` in a name stands for; `{}` counts along with `like`."""
    run = RUN.search(name) or RUN.search(like)
    if not run:
        return [name]
    numbers = range(int(run[1]), int(run[2]) + 1)
    return [RUN.sub(str(n), name).replace("{}", str(n)) for n in numbers]


def _by_number(name: str) -> tuple[str, int]:
    """Return what sorts node2 before node10."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or -1)


def main(words: list[str]) -> None:
    """Print this machine as text; the words say what it is."""
    release = re.split("[-+]", platform.release())[0]
    about = f"{' '.join(words)}\nCaptured by capture.py from Linux {release}, {platform.machine()}."
    sys.stdout.write(fold(Path("/"), about))


if __name__ == "__main__":
    main(sys.argv[1:])
