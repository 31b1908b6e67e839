"""The world of the kernel that this runs on: real processes, driven over sockets. Needs root.

Each process is a fork that serves commands (`worker`). Settings of the machine that a scenario
changes (pools of huge pages, cpusets, KSM) are put back when the world is closed.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movepages.abi import Mode
from movepages.linux.mempolicy import migrate_pages
from movepages.linux.nodes import read_meminfo
from movepages.nodeset import NodeSet
from suite import libc
from suite.outcome import Call
from suite.programs import Program
from suite.protocol import PAGE, Arena, addresses_of
from suite.worker import MESSAGE_BYTES, Worker, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

NODES = Path("/sys/devices/system/node")
CGROUPS = Path("/sys/fs/cgroup")
KSM = Path("/sys/kernel/mm/ksm")
_FILE = Path(__file__).resolve().parents[3] / "LICENSE"
"""A file of several pages that no program maps."""
_FORWARDED = frozenset(
    {
        "await_exit",
        "reset",
        "wait",
        "set_dumpable",
        "mmap",
        "munmap",
        "mprotect",
        "madvise",
        "mlock",
        "write",
        "read",
        "poke",
        "peek",
        "pin",
        "unpin",
        "vdso",
        "vvar",
        "migrate_pages",
        "mbind",
        "set_mempolicy",
        "set_mempolicy_home_node",
    }
)

_FREE_WHEN_FULL_BYTES = 34 << 20
"""Of this the kernel keeps about 23 MiB for itself."""


class LiveWorld:
    """This machine. Close it at the end of the scenario."""

    def __init__(self) -> None:
        """Begin with no process."""
        self._processes: list[LiveProcess] = []
        self._zombies: list[int] = []
        self._descriptors: list[int] = []
        self._groups: list[Path] = []
        self._found: dict[Path, str] = {}

    def __enter__(self) -> Self:
        """Enter it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def process(self, *, uid: int = 0, cpu: int = 0, group: Path | None = None) -> LiveProcess:
        """Fork a process that serves commands."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            self._become(ours, theirs, uid, cpu, group)
        theirs.close()
        return self.adopt(LiveProcess(self, pid, ours, None))

    def adopt(self, process: LiveProcess) -> LiveProcess:
        """Take note of a process, to end it when the world is closed."""
        self._processes.append(process)
        return process

    def drop(self, process: LiveProcess) -> None:
        """Take note that a process has ended: another may have its pid soon."""
        self._processes.remove(process)
        if process.is_child:
            self._zombies.append(process.pid)

    def forget(self) -> None:
        """Close all sockets, as a new process has to, which does not drive the others."""
        for process in self._processes:
            process.forget()

    def shmem(self, pages: int) -> int:
        """Make a memfd, which processes started later inherit."""
        descriptor = os.memfd_create("conformance")
        os.ftruncate(descriptor, pages * PAGE)
        self._descriptors.append(descriptor)
        return descriptor

    def cached_file(self) -> int:
        """Open a file of this project, and drop it from the page cache."""
        descriptor = os.open(_FILE, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        self._descriptors.append(descriptor)
        return descriptor

    def secret(self, pages: int) -> int:
        """Make secret memory, which processes started later inherit."""
        descriptor = libc.memfd_secret()
        os.ftruncate(descriptor, pages * PAGE)
        self._descriptors.append(descriptor)
        return descriptor

    def cpuset(self, nodes: str) -> Path:
        """Make a cgroup with a cpuset."""
        group = CGROUPS / f"conformance-{len(self._groups)}"
        group.mkdir()
        self._groups.append(group)
        self.allow(group, nodes)
        return group

    def allow(self, group: Path, nodes: str) -> None:
        """Set cpuset.mems: the kernel moves its members' pages before the write returns."""
        _write(group / "cpuset.mems", nodes)

    def resize_pool(self, node: int, pages: int) -> None:
        """Set nr_hugepages of a node; pages may take their place in a pool to any other."""
        for other in range(4):
            self._remember(_pool(other))
        self._set(_pool(node), str(pages))

    def pools(self) -> list[int]:
        """Return nr_hugepages of each node."""
        return [int(_pool(node).read_text(encoding="ascii")) for node in range(4)]

    def fill(self, node: int) -> None:
        """Let the node's hugetlb pool have what it can get, and a process what is too scattered.

        A little stays free, for the kernel keeps some of it for itself, and would end the process.
        What it could reclaim there is dropped before, or moved away if this process maps it.
        """
        migrate_pages(0, {node}, {0})
        _write(Path("/proc/sys/vm/drop_caches"), "1")
        self._set(_pool(node), "1000000")
        free_bytes = read_meminfo(node)["MemFree"]
        pages = max(0, free_bytes - _FREE_WHEN_FULL_BYTES) // PAGE
        if pages:
            hog = self.process()
            start = hog.mmap(pages)
            hog.mbind(start, pages * PAGE, Mode.BIND, [node])
            hog.write(start, pages)

    def merge(self) -> None:
        """Let ksmd scan everything three times: to see a page, to see it still, to merge it."""
        self._set(KSM / "sleep_millisecs", "0")
        self._set(KSM / "pages_to_scan", "100000")
        end = int((KSM / "full_scans").read_text(encoding="ascii")) + 3
        self._set(KSM / "run", "1")
        while int((KSM / "full_scans").read_text(encoding="ascii")) < end:
            os.sched_yield()
        self._set(KSM / "run", "0")

    def close(self) -> None:
        """End all processes, and put back what was changed."""
        for process in self._processes:
            process.kill()
        self._zombies += [process.pid for process in self._processes if process.is_child]
        for pid in self._zombies:
            os.waitpid(pid, 0)
        for descriptor in self._descriptors:
            os.close(descriptor)
        for group in self._groups:
            group.rmdir()
        for path, text in self._found.items():
            _write(path, text)

    def _become(
        self, ours: socket.socket, theirs: socket.socket, uid: int, cpu: int, group: Path | None
    ) -> None:
        """Be the new process, to its end."""
        try:
            _keep_apart()
            ours.close()
            self.forget()
            os.sched_setaffinity(0, {cpu})
            if group is not None:
                _write(group / "cgroup.procs", str(os.getpid()))
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            libc.set_dumpable(1)
            serve(Worker(Arena()), theirs)
        finally:
            os._exit(1)

    def _set(self, path: Path, text: str) -> None:
        self._remember(path)
        _write(path, text)

    def _remember(self, path: Path) -> None:
        self._found.setdefault(path, path.read_text(encoding="ascii"))


class LiveProcess:
    """A real process of the world."""

    def __init__(
        self,
        world: LiveWorld,
        pid: int,
        commands: socket.socket,
        parent: LiveProcess | LocalProcess | None,
    ) -> None:
        """Drive the process over its socket; a parent of None is this very process."""
        self.pid = pid
        self._world = world
        self._commands = commands
        self._parent = parent
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        """Pass on what the worker does by itself."""
        if name not in _FORWARDED:
            raise AttributeError(name)
        return lambda *arguments, **options: self._ask(name, *arguments, **options)

    @property
    def is_child(self) -> bool:
        """Whether it is a child of this very process."""
        return self._parent is None

    @property
    def has_ended(self) -> bool:
        """Whether it was told to end."""
        return self._ended

    def fork(self) -> LiveProcess:
        """Fork it, and hand the child a socket of its own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = pickle.dumps(("fork", (), {}))
        socket.send_fds(self._commands, [message], [theirs.fileno()])
        theirs.close()
        return self._world.adopt(LiveProcess(self._world, self._received(), ours, self))

    def exit(self) -> None:
        """Let it end, and return when it is a zombie, or has no memory and no parent."""
        self._commands.send(pickle.dumps(("exit", (), {})))
        self._ended = True
        if self._parent is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        elif self._parent.has_ended:
            self._commands.recv(1)  # nothing: a process lets go of its memory, then of its files
        else:
            self._parent.await_exit(self.pid)
        self.forget()
        self._world.drop(self)

    def move_pages(self, *arguments: Any, **options: Any) -> Call:
        """Make the raw call."""
        return Call(*self._ask("move_pages", *arguments, **options))

    def where(self, address: int, pages: int = 1) -> tuple[int, ...]:
        """Query pages that lie side by side."""
        return self.move_pages(0, addresses_of(address, pages), None, 0).status

    def get_mempolicy(self, flags: int = 0, address: int = 0) -> tuple[int, str]:
        """Make the raw call."""
        ret, mode, words = self._ask("get_mempolicy", flags, address)
        return ret, policy_text(mode, words)

    def kill(self) -> None:
        """End it by force, if it is there still."""
        self.forget()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Close this end of its socket."""
        self._commands.close()

    def _ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._commands.send(pickle.dumps((name, arguments, options)))
        return self._received()

    def _received(self) -> Any:
        message = self._commands.recv(MESSAGE_BYTES)
        if not message:
            raise RuntimeError(f"process {self.pid} has ended without an answer")
        worked, value = pickle.loads(message)  # noqa: S301 - from our own worker
        if not worked:
            raise RuntimeError(f"in process {self.pid}:\n{value}")
        return value


class LocalProcess:
    """This very process as one of the world, for what would take too long over a socket."""

    def __init__(self, world: LiveWorld) -> None:
        """Begin with nothing mapped."""
        self.pid = os.getpid()
        self.has_ended = False
        self._world = world
        self._worker = Worker(Arena())

    def __getattr__(self, name: str) -> Any:
        """Do what a worker does by itself."""
        if name not in _FORWARDED:
            raise AttributeError(name)
        return getattr(self._worker, name)

    def move_pages(self, *arguments: Any, **options: Any) -> Call:
        """Make the raw call."""
        return Call(*self._worker.move_pages(*arguments, **options))

    def fork(self) -> LiveProcess:
        """Fork a process that serves commands."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            ours.close()
            self._world.forget()
            serve(self._worker, theirs)
        theirs.close()
        return self._world.adopt(LiveProcess(self._world, pid, ours, self))


def live_programs(seeds: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """Run random programs one after the other in one process; yield seeds and answers."""
    results, ours = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(results)
        _run_programs(seeds, ours)
    os.close(ours)
    with os.fdopen(results, "rb") as stream:
        for seed in seeds:
            yield seed, pickle.load(stream)  # noqa: S301 - from our own fork
    os.waitpid(pid, 0)


def _run_programs(seeds: Iterable[int], results: int) -> None:
    """Be the process that runs programs, to its end."""
    try:
        _keep_apart()
        os.sched_setaffinity(0, {0})
        with LiveWorld() as world, os.fdopen(results, "wb") as stream:
            root = LocalProcess(world)
            for seed in seeds:
                pickle.dump(Program(seed, world, root).run(), stream)
                stream.flush()
                root.reset()
    except BaseException:  # noqa: BLE001 - said here, for it must not go on as the driver
        traceback.print_exc()
    finally:
        os._exit(0)


def _keep_apart() -> None:
    """Let no collection of garbage write to all that a fork shares with its parent."""
    gc.freeze()
    gc.disable()


def policy_text(mode: int, words: Iterable[int]) -> str:
    """Write what get_mempolicy wrote: the mode, and the nodes if there are any."""
    nodes = NodeSet(
        64 * number + bit
        for number, word in enumerate(words)
        for bit in range(64)
        if word >> bit & 1
    )
    return f"mode {mode}" + (f" nodes {nodes}" if nodes else "")


def _pool(node: int) -> Path:
    return NODES / f"node{node}/hugepages/hugepages-2048kB/nr_hugepages"


def _write(path: Path, text: str) -> None:
    """Write to a file of the kernel in one write(2), which tells its error at once."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
