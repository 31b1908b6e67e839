"""Captured machines, and real processes of every kind, for the tests of the readers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from movepages.abi.pagemap import PageRegion
from movepages.errors import UnsupportedError
from movepages.linux import pagemap
from movepages.linux.limits import read_thp_mode, read_thp_size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

TOPOLOGIES = Path(__file__).parents[1] / "topologies"
PF_KTHREAD = 0x200000  # include/linux/sched.h
PR_SET_DUMPABLE = 4  # include/uapi/linux/prctl.h
unfold = runpy.run_path(str(TOPOLOGIES / "capture.py"))["unfold"]

CROWDED = """
import mmap, os
every = [mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE * (i % 2)) for i in range(10000)]
print("ready", flush=True)
if os.read(0, 5) == b"exec\\n":
    os.execvp("cat", ["cat"])
"""
"""A program with 10,000 mappings, every other one writable, so that the kernel cannot merge them.

Told `exec` it becomes `cat`; at the end of its input it ends.
"""


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Return what unfolds a captured machine of tests/topologies and returns its root."""

    def unfolded(name: str) -> Path:
        root = tmp_path / name
        unfold((TOPOLOGIES / f"{name}.txt").read_text(encoding="utf-8"), root)
        return root

    return unfolded


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a file below a root directory of its own and returns that root."""

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        return tmp_path

    return written


@pytest.fixture
def put_process(put: Callable[..., Path]) -> Callable[..., Path]:
    """Return what writes files of a living process 7 that is called `a (b) c`."""

    def written(**texts: str) -> Path:
        fields = "S 1 7 7 0 -1 4194304 98 0 0 0 0 0 0 0 20 0 1 0 5000 3133440 389 1 4096 8192 9000"
        root = put("proc/7/stat", f"7 (a (b) c) {fields}{' 0' * 10} 3{' 0' * 13}\n")
        for name, text in texts.items():
            put(f"proc/7/{name}", text)
        return root

    return written


@pytest.fixture
def block_root(tmp_path: Path) -> Callable[[Mapping[int, Iterable[int]]], Path]:
    """Return what makes a root with the real /proc, but with memory blocks under nodes as told."""

    def built(nodes_of_block: Mapping[int, Iterable[int]]) -> Path:
        root = tmp_path / "machine"
        system = root / "sys/devices/system"
        (system / "memory").mkdir(parents=True)
        (system / "node").mkdir()
        (root / "proc").symlink_to("/proc")
        (root / "sys/kernel").symlink_to("/sys/kernel")
        shutil.copy("/sys/devices/system/memory/block_size_bytes", system / "memory")
        for block, nodes in nodes_of_block.items():
            (system / f"memory/memory{block}").mkdir()
            for node in nodes:
                (system / f"node/node{node}/memory{block}").mkdir(parents=True)
        online = sorted({node for nodes in nodes_of_block.values() for node in nodes})
        for name in ("online", "has_memory"):
            (system / "node" / name).write_text(",".join(map(str, online)), encoding="ascii")
        return root

    return built


@pytest.fixture
def scanning() -> None:
    """Leaves the test out where the kernel has no PAGEMAP_SCAN, which came with Linux 6.7."""
    try:
        with pagemap.open_pagemap(0) as descriptor:
            pagemap.scan(descriptor, 0, 4096, require=PageRegion.PRESENT)
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def thp() -> None:
    """Leaves the test out where madvise(2) makes no transparent huge pages of 2 MiB."""
    if read_thp_mode() not in {"always", "madvise"} or read_thp_size_bytes() != 2 << 20:
        pytest.skip("needs transparent huge pages of 2 MiB")


@pytest.fixture
def crowded() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with 10,000 mappings."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", CROWDED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@pytest.fixture
def zombie() -> Iterator[int]:
    """Return the pid of a process that has ended and that nobody has waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


@pytest.fixture
def kernel_threads() -> list[int]:
    """Return the pids of some kernel threads; a container may see none."""
    threads = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            flags = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[6])
            threads += [int(path.parent.name)] if flags & PF_KTHREAD else []
    return threads[:3]


@pytest.fixture
def no_pid() -> int:
    """Return a number that no process has: pids are below pid_max."""
    return int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))


@pytest.fixture
def as_stranger() -> Iterator[Callable[[Callable[[], object]], str]]:
    """Return what runs a function without the right to look at this process.

    The function runs in a child, as another user where we are root; and this process is not
    dumpable meanwhile, which keeps off its own user's other processes. Returns what it raised, as
    `NameOfError: message`.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    yield run_as_stranger
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def run_as_stranger(function: Callable[[], object]) -> str:
    """Fork, give up root, call the function, and return what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        return said
    said = "nothing"
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(1000)
            os.setuid(1000)
        function()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent judges it
        said = f"{type(error).__name__}: {error}"
    os.write(writing, said.encode())
    os._exit(0)
