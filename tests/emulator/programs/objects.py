"""Has segments and a file on nodes, moves them by the command line, and looks at its own pages.

    objects.py DIRECTORY

Prints a line of JSON: what `movepages` said of each step, and where the pages are in the end.
"""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import os
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numa

from movepages.cli import main
from movepages.report.output import Output

PAGE, PAGES = mmap.PAGESIZE, 32
IPC_PRIVATE, IPC_RMID = 0, 0
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]


def asked(*arguments):
    """Run movepages here, and return its exit code, its JSON and what it said besides."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stderr(err):
        code = main([*arguments, "--json"], output=Output(out))
    return {"code": code, "said": json.loads(out.getvalue() or "null"), "err": err.getvalue()}


def places(address, pages=PAGES):
    """Count pages by node."""
    statuses = numa.statuses(numa.pages_from(address, pages))
    return {str(node): statuses.count(node) for node in sorted({*statuses})}


def written(memory):
    """Write into each page its number."""
    for page in range(PAGES):
        memory[page * PAGE] = page


def intact(memory):
    """Tell whether each page still has its number."""
    return [memory[page * PAGE] for page in range(PAGES)] == list(range(PAGES))


def address_of(memory):
    """Return the address of a mapping that may be written to."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


directory = Path(sys.argv[1])
numa.set_policy(numa.INTERLEAVE, 0, 2)
steps = {}

# A file in the page cache, that nobody has mapped.
path = directory / "data"
path.write_bytes(bytes(range(256)) * (PAGE // 256) * PAGES)
before = path.read_bytes()
sparse = directory / "sparse"
with sparse.open("wb") as file:
    file.truncate(PAGES * PAGE)
steps["file before"] = asked("file", str(path))
steps["dry run"] = asked("file", str(path), "--to", "1", "--dry-run")
steps["file"] = asked("file", str(path), str(sparse), "--to", "1", "--verify")
steps["file by turns"] = asked("file", str(path), "--to", "1,3", "--limit-rate", "1G/s")
steps["file same"] = path.read_bytes() == before
steps["holes"] = sparse.stat().st_blocks

# The same file, mapped by this process: its pages move with --shared only.
with path.open("r+b") as file:
    mapped = mmap.mmap(file.fileno(), PAGES * PAGE)
written(mapped)
steps["mapped"] = asked("file", str(path), "--to", "0")
steps["mapped, shared"] = asked("file", str(path), "--to", "0", "--shared")
steps["mapped, now"] = places(address_of(mapped))
steps["mapped, same"] = intact(mapped)

# A segment of System V and one of POSIX, that this process has mapped.
shmid = libc.shmget(IPC_PRIVATE, ctypes.c_size_t(PAGES * PAGE), 0o600)
start = libc.shmat(shmid, None, 0)
sysv = (ctypes.c_ubyte * (PAGES * PAGE)).from_address(start)
written(sysv)
name = f"/dev/shm/movepages-test-{os.getpid()}"
with open(os.open(name, os.O_RDWR | os.O_CREAT), "r+b") as file:  # noqa: PTH123
    file.truncate(2 * PAGES * PAGE)
    posix = mmap.mmap(file.fileno(), 2 * PAGES * PAGE)
numa.bind(address_of(posix), 2 * PAGES, numa.BIND, 2)
written(posix)
try:
    steps["shm before"] = asked("shm", f"sysv:{shmid}", name)
    steps["shm"] = asked("shm", f"sysv:{shmid}", name, "--to", "3", "--shared")
    steps["shm now"] = [places(start), places(address_of(posix))]
    steps["shm same"] = intact(sysv) and intact(posix)
finally:
    Path(name).unlink()
    libc.shmdt(start)
    libc.shmctl(shmid, IPC_RMID, None)
sys.stdout.write(json.dumps(steps) + "\n")
