"""Memory to measure on. As a program: a process that makes some, and holds it until told to end.

    python memory.py KIND PAGES SHARE PATTERN

KIND is what the memory is made of, PAGES how many base pages of it are resident, one in SHARE of
the mapping, and PATTERN how they lie in it:

- base: no huge pages. Pattern `block` (one stretch at the start), `runs-N` (N resident pages, then
  (SHARE - 1) * N that were never touched, and so on) or `random` (pages drawn by chance).
- thp, hugetlb: huge pages, all of them resident.
- mappings: PAGES mappings of one page each, readable only and writable by turns.

Prints where the memory starts and ends, then waits for its standard input to end. It needs no
packages and imports little, so that it has few mappings but those it is asked for.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = mmap.PAGESIZE
HUGE_PAGE = 2 << 20
MAP_HUGETLB, MAP_NORESERVE = 0x40000, 0x4000  # include/uapi/asm-generic/mman-common.h
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_SEED = 2006


def touched(pages: int, share: int = 1, pattern: str = "block") -> mmap.mmap:
    """Return memory of base pages, some of them resident: see the description of this module."""
    memory = mmap.mmap(-1, pages * share * PAGE, flags=_PRIVATE | MAP_NORESERVE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for first, last in stretches(pages, share, pattern):
        memory[first * PAGE : last * PAGE : PAGE] = bytes(last - first)
    return memory


def stretches(pages: int, share: int, pattern: str) -> Iterator[tuple[int, int]]:
    """Go through the stretches of pages to touch, as first and last, the last excluded."""
    name, _, length = pattern.partition("-")
    if name == "block":
        yield 0, pages
    elif name == "runs":
        run = int(length)
        for done in range(0, pages, run):
            yield done * share, done * share + min(run, pages - done)
    elif name == "random":
        from random import Random  # brings mappings with it, which the other patterns are spared

        chance = Random(_SEED)  # noqa: S311 - the same pages each time
        for page in sorted(chance.sample(range(pages * share), pages)):
            yield page, page + 1
    else:
        raise ValueError(f"there is no pattern {pattern!r}")


def address_of(memory: mmap.mmap) -> int:
    """Return the address of memory; it must stay open while that is used."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _base(pages: int, share: int, pattern: str) -> tuple[mmap.mmap, int, int]:
    memory = touched(pages, share, pattern)
    return memory, address_of(memory), len(memory)


def _thp(pages: int) -> tuple[mmap.mmap, int, int]:
    size = pages * PAGE // HUGE_PAGE * HUGE_PAGE
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=_PRIVATE | MAP_NORESERVE)
    memory.madvise(mmap.MADV_HUGEPAGE)
    skipped = -address_of(memory) % HUGE_PAGE
    memory[skipped : skipped + size : HUGE_PAGE] = bytes(size // HUGE_PAGE)
    return memory, address_of(memory) + skipped, size


def _hugetlb(pages: int) -> tuple[mmap.mmap, int, int]:
    size = pages * PAGE // HUGE_PAGE * HUGE_PAGE
    memory = mmap.mmap(-1, size, flags=_PRIVATE | MAP_HUGETLB)
    memory[::HUGE_PAGE] = bytes(size // HUGE_PAGE)
    return memory, address_of(memory), size


def _mappings(count: int) -> tuple[list[mmap.mmap], int, int]:
    """Make mappings that the kernel cannot join, for neighbours differ in what is allowed."""
    memory = []
    for index in range(count):
        writable = mmap.PROT_WRITE if index % 2 else 0
        memory.append(mmap.mmap(-1, PAGE, flags=_PRIVATE, prot=mmap.PROT_READ | writable))
        if writable:
            memory[index][0] = 1
    return memory, 0, 0


def hold(kind: str, pages: int, share: int, pattern: str) -> None:
    """Make memory, say where it is, and hold it until standard input ends."""
    memory: object
    if kind == "base":
        memory, start, size = _base(pages, share, pattern)
    else:
        memory, start, size = {"thp": _thp, "hugetlb": _hugetlb, "mappings": _mappings}[kind](pages)
    print(start, start + size, flush=True)
    sys.stdin.read()
    del memory


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
