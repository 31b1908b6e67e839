"""Makes random NUMA calls with odd arguments, and prints a line for each: the call and its answer.

    odd_calls.py SEED CALLS [KERNEL_THREAD]

The same seed makes the same calls on memory that lies at the same addresses, so that two kernels
can be compared line by line. Tasks are printed by what they are, and addresses by what lies there.
The standard library alone, raw system calls.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

PAGE = mmap.PAGESIZE
BASE = 0x1000_0000_0000
"""Far from where the kernel puts anything by itself."""
FILL = b"\x99"
ARRAY_BYTES = 3 * PAGE
NUMBERS = {
    "x86_64": (279, 256, 237, 238, 239, 450),
    "aarch64": (239, 238, 235, 237, 236, 450),
    "riscv64": (239, 238, 235, 237, 236, 450),
}
NAMES = (
    "move_pages",
    "migrate_pages",
    "mbind",
    "set_mempolicy",
    "get_mempolicy",
    "set_mempolicy_home_node",
)
ULONG_MAX = (1 << 64) - 1
INT_MIN = -(1 << 31)
MAP_FIXED, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS = 0x10, 1, 2, 0x20
MADV_DONTNEED, MADV_REMOVE, MADV_NOHUGEPAGE = 4, 9, 15
READ, WRITE = 1, 2
AT_SYSINFO_EHDR = 33

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.getauxval.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.getauxval.argtypes = (ctypes.c_ulong,)
libc.syscall.restype = ctypes.c_long
libc.syscall.argtypes = (ctypes.c_long, *[ctypes.c_ulong] * 6)


@dataclass(frozen=True)
class Area:
    """Pages of the arena: `prepare` is what was done to them, and decides what they are."""

    name: str
    pages: int
    prepare: str

    def bytes(self):
        """Return its size in bytes."""
        return self.pages * PAGE


AREAS = (
    Area("array", 3, "written"),
    Area("guard", 1, "none"),
    Area("out", 2, "written"),
    Area("gap", 1, "hole"),
    Area("touched", 8, "written"),
    Area("untouched", 8, ""),
    Area("zero", 4, "read"),
    Area("readonly", 3, "readonly"),
    Area("none", 3, "none"),
    Area("hole", 2, "hole"),
    Area("shared", 4, "shared"),
    Area("private", 4, "private"),
    Area("wall", 1, "none"),
    Area("sparse", 4, "sparse"),
    Area("end", 1, "written"),
    Area("beyond", 64, "hole"),
)


class Arena:
    """Memory of every kind, at a fixed place."""

    def __init__(self):
        """Map and touch it."""
        self.start = {}
        self.area = {area.name: area for area in AREAS}
        address = BASE
        for area in AREAS:
            self.start[area.name] = address
            self._make(area, address)
            address += area.bytes()

    def _make(self, area, address):
        if area.prepare == "hole":
            return
        size, file = area.bytes(), -1
        flags = MAP_FIXED | (MAP_SHARED if area.prepare in {"shared", "sparse"} else MAP_PRIVATE)
        if area.prepare in {"shared", "private", "sparse"}:
            file = os.memfd_create(area.name)
            os.ftruncate(file, size)
        else:
            flags |= MAP_ANONYMOUS
        assert libc.mmap(address, size, READ | WRITE, flags, file, 0) == address
        libc.madvise(address, size, MADV_NOHUGEPAGE)
        if area.prepare in {"written", "none", "readonly", "shared"}:
            ctypes.memset(address, 1, size)
        if area.prepare in {"private", "sparse"}:
            ctypes.memset(address, 1, size // 2)
        if area.prepare in {"read", "private"}:
            ctypes.string_at(address, size)
        if area.prepare == "readonly":
            libc.mprotect(address, size, READ)
        if area.prepare == "none":
            libc.mprotect(address, size, 0)

    def fill(self, array):
        """Put an array where the next call reads it, and a pattern where it writes."""
        ctypes.memset(self.start["array"], 0, ARRAY_BYTES)
        ctypes.memmove(self.start["array"], array, len(array))
        ctypes.memset(self.start["out"], FILL[0], 2 * PAGE)

    def written(self):
        """Tell what the call wrote, as offset and bytes."""
        out = ctypes.string_at(self.start["out"], 2 * PAGE)
        tail = out.rstrip(FILL)
        if not tail:
            return "-"
        first = len(out) - len(out.lstrip(FILL))
        return f"{first}:{tail[first:].hex()}"

    def say(self, address):
        """Name an address by what lies there."""
        for area in AREAS:
            offset = address - self.start[area.name]
            if 0 <= offset < area.bytes():
                return f"{area.name}+{offset:#x}"
        return f"{address & ULONG_MAX:#x}" if address != VDSO else "vdso"


VDSO = libc.getauxval(AT_SYSINFO_EHDR) or 0
ARENA = Arena()
ODD_ADDRESSES = (
    0,
    1,
    PAGE,
    BASE - PAGE,
    ARENA.start["beyond"],
    VDSO,
    (1 << 47) - PAGE,
    1 << 47,
    0xFFFF_FFFF_FF60_0000,
    ULONG_MAX - PAGE + 1,
    ULONG_MAX,
)


class Calls:
    """Chooses calls by a seed."""

    def __init__(self, seed, tasks):
        """`tasks` are pids by name."""
        self.rng = random.Random(seed)  # noqa: S311 - to be repeated
        self.tasks = tasks

    # -- arguments: mostly sound, so that calls get beyond their first check --------------------

    def odd(self, chance=0.15):
        """Decide whether an argument is to be an odd one."""
        return self.rng.random() < chance

    def pick(self, *choices):
        """Choose one."""
        return self.rng.choice(choices)

    def task(self):
        """Choose a task by name."""
        if self.odd(0.4):
            return self.pick(*self.tasks)
        return self.pick("0", "self", "child")

    def address(self):
        """Choose an address for a page."""
        if self.odd():
            return self.pick(*ODD_ADDRESSES)
        area = self.pick(*AREAS)
        offset = self.rng.randrange(area.pages) * PAGE
        return ARENA.start[area.name] + offset + (self.pick(1, 8, 4095) if self.odd() else 0)

    def pointer(self, size, *, writes):
        """Choose where an array of some bytes is read or written."""
        good = ARENA.start["out" if writes else "array"]
        if not self.odd(0.25):
            return good
        whole = ARENA.area["out" if writes else "array"].bytes()
        # The emulator reads arrays ahead, which would touch more of these than the kernel does.
        sparse = ("untouched", "zero", "sparse") if writes else ()
        bad = ("guard", "none", "hole", "private", "shared", "end", *sparse)
        return self.pick(
            good + 1,
            good + 4,
            good + PAGE - max(size // 2, 1),
            good + whole - max(size // 2, 1),
            good + whole - size,
            good + whole - size + 1,
            good + whole,
            *(ARENA.start[name] for name in bad),
            ARENA.start["guard"] + PAGE - max(size // 2, 1),
            ARENA.start["readonly" if writes else "end"],
            ARENA.start["beyond"] - 4,
            *ODD_ADDRESSES,
        )

    def mask(self):
        """Choose the words of a node mask."""
        words = [0] * self.pick(1, 1, 2, 16, 17, 20)
        words[0] = self.pick(1, 1, 1, 1, 0, 2, 3, ULONG_MAX)
        if self.odd(0.2):
            words[-1] |= self.pick(1, 2, 1 << 63)
        return b"".join(word.to_bytes(8, "little") for word in words)

    def maxnode(self):
        """Choose a count of nodes."""
        if not self.odd(0.5):
            return self.pick(2, 64, 65, 1024, 1025)
        edges = (0, 1, 2, 3, 63, 64, 65, 66, 127, 128, 129, 1024, 1025, 1026, 1088, 1089, 1090)
        return self.pick(
            *edges, 4096, 32768, 32769, 32770, 1 << 31, 1 << 32, 1 << 63, ULONG_MAX, ULONG_MAX - 62
        )

    def mode(self):
        """Choose a policy with flags."""
        mode = self.pick(0, 1, 2, 2, 3, 4, 5, 6)
        if self.odd():
            mode = self.pick(7, 8, 255, -1, 1 << 30, INT_MIN, 1 << 32, (1 << 32) + 2)
        return mode | (self.pick(1 << 13, 1 << 14, 1 << 15, 3 << 14, 7 << 13) if self.odd() else 0)

    def length(self):
        """Choose a length in bytes."""
        if not self.odd(0.3):
            return self.rng.randrange(1, 6) * PAGE
        return self.pick(
            0, 1, PAGE - 1, PAGE + 1, 1 << 20, 1 << 46, 1 << 63, ULONG_MAX, ULONG_MAX - PAGE + 2
        )

    # -- the calls: array to read, arguments, and how they are printed --------------------------

    def move_pages(self):
        """move_pages(pid, nr_pages, pages, nodes, status, flags)."""
        pages = [self.address() for _ in range(self.pick(1, 1, 2, 3, 15, 16, 17, 33, 70))]
        pages += [self.pick(*pages)] if self.odd() else []
        nodes = [0] * len(pages)
        if self.odd(0.3):
            odd_nodes = (1, 2, -1, 63, 1023, 1024, 1 << 20, INT_MIN, (1 << 31) - 1)
            nodes[self.rng.randrange(len(pages))] = self.pick(*odd_nodes)
        count = len(pages)
        if self.odd(0.1):
            count = self.pick(
                0, count + 1, 600, 5000, 1 << 31, 1 << 32, 1 << 61, 1 << 63, ULONG_MAX
            )
        flags = self.pick(2, 2, 4, 0)
        if self.odd():
            flags = self.pick(1, 6, 8, 16, -1, INT_MIN, 1 << 32, (1 << 32) + 2)
        array = b"".join((page & ULONG_MAX).to_bytes(8, "little") for page in pages)
        at_nodes = ARENA.start["array"] + PAGE
        array = array.ljust(PAGE, b"\0") + b"".join(
            n.to_bytes(4, "little", signed=True) for n in nodes
        )
        where = self.pointer(8 * len(pages), writes=False)
        if where == ARENA.start["array"] + 3 * PAGE - 8 * len(pages):
            where = at_nodes - 8 * len(pages)
        targets = 0 if self.odd(0.4) else at_nodes
        if targets and self.odd():
            targets = self.pointer(4 * len(pages), writes=False)
        status = self.pointer(4 * len(pages), writes=True)
        said = ",".join(
            f"{ARENA.say(page)}>{node}" for page, node in zip(pages, nodes, strict=True)
        )
        task = self.task()
        args = (self.tasks[task], count, where, targets, status, flags)
        return array, args, (task, count, *map(ARENA.say, args[2:5]), flags, f"[{said}]")

    def migrate_pages(self):
        """migrate_pages(pid, maxnode, old_nodes, new_nodes)."""
        old, new = self.mask(), self.mask()
        array = old.ljust(PAGE, b"\0") + new
        task, maxnode = self.task(), self.maxnode()
        first = self.pointer(len(old), writes=False)
        second = ARENA.start["array"] + PAGE
        if self.odd():
            second = self.pointer(len(new), writes=False)
        said = (task, maxnode, ARENA.say(first), ARENA.say(second), old.hex(), new.hex())
        return array, (self.tasks[task], maxnode, first, second), said

    def mbind(self):
        """mbind(start, length, mode, nodemask, maxnode, flags)."""
        mask = self.mask()
        flags = self.pick(0, 1, 2, 3, 4, 7)
        if self.odd():
            flags = self.pick(8, 15, 16, -1, 1 << 32)
        args = (
            self.address() & ~(0 if self.odd() else PAGE - 1),
            self.length(),
            self.mode(),
            self.pointer(len(mask), writes=False),
            self.maxnode(),
            flags,
        )
        start, length, mode, pointer, *rest = args
        said = (ARENA.say(start), length, hex(mode), ARENA.say(pointer), *rest, mask.hex())
        return mask, args, said

    def set_mempolicy(self):
        """set_mempolicy(mode, nodemask, maxnode)."""
        mask = self.mask()
        args = self.mode(), self.pointer(len(mask), writes=False), self.maxnode()
        return mask, args, (hex(args[0]), ARENA.say(args[1]), args[2], mask.hex())

    def get_mempolicy(self):
        """get_mempolicy(mode, nodemask, maxnode, address, flags)."""
        mode = self.pointer(4, writes=True)
        nodes = self.pick(0, ARENA.start["out"] + 64)
        if self.odd():
            nodes = self.pointer(128, writes=True)
        flags = self.pick(0, 1, 2, 2, 3, 3, 4)
        if self.odd():
            flags = self.pick(5, 6, 7, 8, 1 << 32, ULONG_MAX)
        address = self.address() if flags & 2 or self.odd() else 0
        args = mode, nodes, self.maxnode(), address, flags
        said = (*map(ARENA.say, args[:2]), args[2], ARENA.say(address), flags)
        return b"", args, said

    def set_mempolicy_home_node(self):
        """set_mempolicy_home_node(start, length, home_node, flags)."""
        start = self.address() & ~(0 if self.odd() else PAGE - 1)
        node = self.pick(1, 63, 64, 1023, 1024, 1 << 32, ULONG_MAX) if self.odd() else 0
        args = start, self.length(), node, self.pick(1, 1 << 32) if self.odd(0.1) else 0
        return b"", args, (ARENA.say(start), *args[1:])

    # -- what happens between calls ---------------------------------------------------------------

    def change_memory(self):
        """Drop or touch some page: whatever a program does between two calls.

        No page of a file is dropped that stays in the page cache: what a read maps around it ends
        at the borders between policies, of which the host's kernel knows nothing.
        """
        changing = ("touched", "untouched", "zero", "sparse", "shared", "private")
        area = ARENA.area[self.pick(*changing)]
        page = ARENA.start[area.name] + self.rng.randrange(area.pages) * PAGE
        what = self.pick("drop", "read", "write", "anew")
        if what == "read":
            ctypes.string_at(page, 1)
        if what == "write":
            ctypes.memset(page, 2, 1)
        if area.name in {"shared", "private"}:
            return
        if what == "drop":
            libc.madvise(page, PAGE, MADV_REMOVE if area.name == "sparse" else MADV_DONTNEED)
        if what == "anew" and area.name != "sparse":
            libc.munmap(page, PAGE)
            flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS
            libc.mmap(page, PAGE, READ | WRITE, flags, -1, 0)


def say_line(number, calls):
    """Make one call, and print it with what came of it."""
    if calls.odd(0.3):
        calls.change_memory()
    which = calls.pick(*range(len(NAMES)), 0, 0, 2, 4)
    array, args, said = getattr(calls, NAMES[which])()
    ARENA.fill(array)
    registers = [arg & ULONG_MAX for arg in args] + [0] * (6 - len(args))
    ctypes.set_errno(0)
    ret = libc.syscall(NUMBERS[os.uname().machine][which], *registers)
    answer = ret if ret >= 0 else -ctypes.get_errno()
    sys.stdout.write(
        f"{number} {NAMES[which]}({', '.join(map(str, said))}) = {answer} {ARENA.written()}" + "\n"
    )


def main(seed, count, *kernel_threads):
    """Print the calls of a seed."""
    forever = threading.Event()
    thread = threading.Thread(target=forever.wait)
    thread.start()
    child = os.fork()
    if not child:
        os.read(os.pipe()[0], 1)
    zombie = os.fork()
    if not zombie:
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    tasks = {
        "0": 0,
        "self": os.getpid(),
        "thread": thread.native_id,
        "child": child,
        "zombie": zombie,
        "init": 1,
        "absent": (1 << 22) + 1,
        "-1": -1,
        "INT_MIN": INT_MIN,
        "2^32": 1 << 32,
    }
    tasks |= dict(zip(("kernel thread",), kernel_threads, strict=False))
    calls = Calls(seed, tasks)
    try:
        for number in range(count):
            say_line(number, calls)
    finally:
        forever.set()
        for pid in (child, zombie):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
