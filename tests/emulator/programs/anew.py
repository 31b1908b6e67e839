"""Memory that goes and comes again at the same place, under the same number, or at another place.

    anew.py DIRECTORY

Prints a line of JSON: how many answers were looked at, and those that are wrong, each as
[what, answer, wanted].
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import threading
from pathlib import Path

import numa
from family import Findings

PAGES = 8
FIXED, ANONYMOUS, PRIVATE, SHARED = 0x10, 0x20, 2, 1
POPULATE = 0x8000
READ_WRITE = 3
DONTNEED = 4
MAYMOVE, REMAP_FIXED, DONTUNMAP = 1, 2, 4
FAILED = (1 << 64) - 1
IPC_CREAT, IPC_RMID = 0o1000, 0
libc = ctypes.CDLL(None, use_errno=True)
size_t, pointer, number = ctypes.c_size_t, ctypes.c_ulong, ctypes.c_int
for name, types in {
    "mmap": (pointer, size_t, number, number, number, ctypes.c_long),
    "munmap": (pointer, size_t),
    "mremap": (pointer, size_t, size_t, number, pointer),
    "madvise": (pointer, size_t, number),
    "sbrk": (ctypes.c_long,),
    "shmget": (number, size_t, number),
    "shmat": (number, pointer, number),
    "shmdt": (pointer,),
    "shmctl": (number, number, pointer),
}.items():
    getattr(libc, name).argtypes = types
for name in ("mmap", "mremap", "sbrk", "shmat"):
    getattr(libc, name).restype = pointer
CASES = []


def case(function):
    """Take a function as one of the cases."""
    CASES.append(function)
    return function


def nodes(address, pages=PAGES):
    """Ask where pages are."""
    return numa.statuses(numa.pages_from(address, pages))


def new_file(path, node):
    """Make a file whose pages are read into memory by a task bound to a node; map it."""
    path.write_bytes(bytes(PAGES * numa.PAGE))
    numa.set_policy(numa.BIND, node)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    view = (ctypes.c_char * len(memory)).from_buffer(memory)
    address = ctypes.addressof(view)
    del view
    numa.touch(address, PAGES)
    return memory, address


@case
def inode_that_is_used_again(findings, directory):
    """A new file with the number of one that is gone has pages of its own."""
    path = directory / "file"
    memory, address = new_file(path, 1)
    findings.expect("first file", nodes(address), 1)
    moved = numa.statuses(numa.pages_from(address, PAGES), [3] * PAGES)
    findings.expect("first file, moved", moved, 3)
    memory.close()
    path.unlink()
    memory, address = new_file(path, 2)
    findings.expect("second file", nodes(address), 2)
    path.unlink()
    findings.expect("second file without its name", nodes(address), 2)
    memory.close()


def anonymous(pages=PAGES, place=0, more=0):
    """Map memory, at a place that is free if one is given."""
    start = libc.mmap(place, pages * numa.PAGE, READ_WRITE, PRIVATE | ANONYMOUS | more, -1, 0)
    assert start == place or (start != FAILED and not place)
    libc.madvise(start, pages * numa.PAGE, numa.NOHUGEPAGE)
    return start


def remapped(start, pages, new_pages, flags, target=0):
    """Remap pages; return where they are."""
    new = libc.mremap(start, pages * numa.PAGE, new_pages * numa.PAGE, flags, target)
    assert new != FAILED, os.strerror(ctypes.get_errno())
    return new


def policy_of(address):
    """Ask for the mode and the nodes of the policy of an address."""
    mode, mask = ctypes.c_int(-1), ctypes.c_ulong(0)
    pointers = ctypes.addressof(mode), ctypes.addressof(mask)
    assert numa.call("get_mempolicy", *pointers, 65, address, 2) == 0
    return mode.value, mask.value


@case
def policies_move_along(findings, _directory):
    """A policy goes with its area to where the kernel puts it, and holds for what it grows by."""
    start = anonymous()
    numa.bind(start, 4, numa.BIND, 1)
    numa.bind(start + 4 * numa.PAGE, 4, numa.BIND, 3)
    new = remapped(start, PAGES, 4096, MAYMOVE)
    assert new != start
    other = anonymous()
    numa.set_policy(numa.BIND, 2)
    numa.touch(new, 2 * PAGES)
    numa.touch(other, PAGES)
    findings.expect("moved and grown", nodes(new, 2 * PAGES), [1] * 4 + [3] * 12)
    findings.expect("mapped since", nodes(other), 2)
    there = anonymous()
    numa.touch(there, PAGES)
    assert remapped(new, 2, 2, MAYMOVE | REMAP_FIXED, there + numa.PAGE) == there + numa.PAGE
    findings.expect("put over others", nodes(there), [2, 1, 1, *[2] * 5])
    wanted = [numa.BIND, 1 << 1]
    findings.expect("its policy", list(policy_of(there + 2 * numa.PAGE)), wanted)
    findings.expect("the old policy", list(policy_of(there)), [numa.DEFAULT, 0])


@case
def touched_pages_move_along(findings, _directory):
    """Pages that were moved stay where they are, wherever mremap puts them, with a page between."""
    numa.set_policy(numa.BIND, 2)
    start = anonymous()
    numa.touch(start, PAGES)
    numa.statuses(numa.pages_from(start, PAGES), [page % 4 for page in range(PAGES)])
    new = remapped(start, PAGES, 4096, MAYMOVE)
    again = anonymous(place=start)
    numa.touch(again, PAGES)
    numa.touch(new, 2 * PAGES)
    findings.expect("moved", nodes(new, 2 * PAGES), [page % 4 for page in range(PAGES)] + [2] * 8)
    findings.expect("mapped where it was", nodes(again), 2)
    left = remapped(new, 4, 4, MAYMOVE | DONTUNMAP)
    numa.touch(new, 4)
    findings.expect("taken out", nodes(left, 4), [0, 1, 2, 3])
    findings.expect("left behind", nodes(new, PAGES), [2, 2, 2, 2, 0, 1, 2, 3])
    grown = remapped(left, 4, 2, 0)
    findings.expect("made smaller", nodes(grown, 2), [0, 1])


@case
def pages_that_come_without_a_fault(findings, _directory):
    """What is populated where a thread has touched memory before is not that thread's."""
    start = anonymous()

    def work():
        numa.set_policy(numa.BIND, 1)
        numa.touch(start, PAGES)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    libc.munmap(start, PAGES * numa.PAGE)
    numa.set_policy(numa.BIND, 2)
    anonymous(place=start, more=POPULATE)
    findings.expect("populated", nodes(start), 2)


@case
def heap_that_shrinks(findings, _directory):
    """What brk gives back is new when the heap has grown again; what it kept is not."""
    numa.set_policy(numa.BIND, 1)
    top = libc.sbrk(0)
    start = -(-top // numa.PAGE) * numa.PAGE
    libc.sbrk(start - top + 2 * PAGES * numa.PAGE)
    numa.touch(start, 2 * PAGES)
    numa.bind(start, 2 * PAGES, numa.BIND, 3)
    moved = numa.statuses(numa.pages_from(start, 2 * PAGES), [3] * 2 * PAGES)
    findings.expect("heap, moved", moved, 3)
    libc.sbrk(-PAGES * numa.PAGE)
    libc.sbrk(PAGES * numa.PAGE)
    numa.set_policy(numa.BIND, 2)
    numa.touch(start, 2 * PAGES)
    findings.expect("heap, grown again", nodes(start, 2 * PAGES), [3] * PAGES + [2] * PAGES)
    libc.sbrk(top - libc.sbrk(0))


@case
def segment_that_is_detached(findings, _directory):
    """The policy of an area goes with the segment that it showed."""
    segment = libc.shmget(0, PAGES * numa.PAGE, IPC_CREAT | 0o600)
    start = libc.shmat(segment, 0, 0)
    libc.shmctl(segment, IPC_RMID, 0)
    numa.set_policy(numa.BIND, 2)
    numa.bind(start, PAGES, numa.BIND, 3)
    numa.touch(start, PAGES)
    findings.expect("segment", nodes(start), 3)
    assert libc.shmdt(start) == 0
    anonymous(place=start)
    numa.touch(start, PAGES)
    findings.expect("where it was", nodes(start), 2)


@case
def calls_that_fail(findings, directory):
    """What the kernel refuses drops no page."""
    numa.set_policy(numa.BIND, 2)
    start, length = anonymous(), PAGES * numa.PAGE
    numa.touch(start, PAGES)
    numa.statuses(numa.pages_from(start, PAGES), [3] * PAGES)
    path = directory / "to write"
    path.write_bytes(bytes(length))
    writes = os.open(path, os.O_WRONLY)
    reads = os.open(path, os.O_RDONLY)
    listed = os.open(directory, os.O_RDONLY)

    def mapped(flags, descriptor=-1, offset=0, protection=READ_WRITE):
        return libc.mmap(start, length, protection, FIXED | flags, descriptor, offset)

    refused = {
        "no descriptor": mapped(PRIVATE, 99),
        "opened to write": mapped(PRIVATE, writes),
        "shared, opened to read": mapped(SHARED, reads),
        "a directory": mapped(PRIVATE, listed),
        "an odd offset": mapped(PRIVATE, reads, 1),
        "neither shared nor private": mapped(ANONYMOUS),
        "nothing to be replaced": mapped(PRIVATE | ANONYMOUS | 0x100000),
        "an odd address": libc.munmap(start + 1, length),
        "no length": libc.munmap(start, 0),
        "advice at an odd address": libc.madvise(start + 1, length, DONTNEED),
        "advice as long as all": libc.madvise(start, FAILED, DONTNEED),
        "unknown flags": libc.mremap(start, length, numa.PAGE, 8, 0),
        "onto itself": (
            libc.mremap(start, length, length, MAYMOVE | REMAP_FIXED, start + numa.PAGE)
        ),
        "fixed and not to be moved": (
            libc.mremap(start, length, numa.PAGE, REMAP_FIXED, start + 16 * length)
        ),
    }
    for what, returned in refused.items():
        findings.expect(what, [returned in {-1, FAILED}], True)
    findings.expect("after all that failed", nodes(start), 3)
    for descriptor in (writes, reads, listed):
        os.close(descriptor)
    path.unlink()


def main(directory):
    """Go through the cases, and print what was found."""
    findings = Findings()
    for function in CASES:
        function(findings, directory)
    sys.stdout.write(json.dumps(vars(findings)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
