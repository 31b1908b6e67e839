"""The machine that a program sees, made only when something is asked that takes it.

A program is loaded, opens files, maps and unmaps memory long before its first NUMA call, and many
make none. Until somebody has asked for a page or set a policy, no page has a node and no thread a
policy: a change of the map has nothing to forget, and files tell of a machine that nobody uses. So
the program starts at once, and NumPy and `kernel/` are imported while it runs, or not at all.

Two things bring the machine about: a call that needs it, and page faults by the thousand. A program
that touches so much will run for a while, so it is made beside it.

For the same reason modules are imported here where they are needed, by whoever needs them.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movepages.abi import CALLS
from movepages.emulator.declared import MOST_NODES, semantics_named
from movepages.emulator.filter import Precision
from movepages.emulator.host_cpus import place_cpus, read_host_cpus
from movepages.emulator.namespaces import host_pid
from movepages.emulator.replies import Continue
from movepages.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from movepages.emulator.early_faults import EarlyFaults
    from movepages.emulator.files import Files, FileSource
    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.procfs import NodePool
    from movepages.emulator.replies import Handler, Reply
    from movepages.linux.seccomp import Notification
    from movepages.nodeset import NodeSet
    from movepages.topology import Topology

_PROC = Path("/proc")
_FORGETTING = ("munmap", "mmap", "madvise", "brk", "shmdt")
_KEEPING = ("mremap",)
"""Who touched pages that move elsewhere has to be noted while they are still where they were."""
_TURN_SECONDS = 0.0002
"""How long the thread that answers may have to wait for one that imports."""


class DeferredMachine:
    """A World: an `EmulatedMachine` that is there from when it is needed, and a source of files."""

    def __init__(
        self, topology: Topology, precision: Precision, make: Callable[[], EmulatedMachine]
    ) -> None:
        """Declare it; `make` makes the machine of that topology and precision.

        Raises TopologyError for a node with too high a number.
        """
        if max(topology.online) >= MOST_NODES:
            raise TopologyError(
                f"node {max(topology.online)}: emulated nodes are numbered 0 to {MOST_NODES - 1}"
            )
        placed = place_cpus(topology, read_host_cpus())
        self.notice = placed.notice
        self._topology, self._precision, self._make = placed.topology, precision, make
        self._possible = max(placed.topology.possible | placed.topology.online) + 1
        self._program = 0
        self._early: EarlyFaults | None = None
        self._make_files: Callable[..., Files] | None = None
        self._making = threading.Lock()
        self._machine: EmulatedMachine | None = None
        self._handlers: Mapping[str, Handler] | None = None
        self._source: FileSource | None = None

    # -- what the one who runs the program asks -----------------------------------------------

    def furnish(self, directory: Path) -> list[tuple[Path, Path]]:
        """Write the files of the machine below a directory; return what is to be bound where."""
        from movepages.emulator.sysfs import as_booted, read_huge_page_sizes, write_tree

        return write_tree(as_booted(self._topology, read_huge_page_sizes()), directory)

    def attach(self, pid: int) -> None:
        """Learn which process will be the program, and log its page faults from now on.

        While it furnishes the machine, import what will be needed when it has.
        """
        from movepages.emulator.files import Files

        self._make_files = partial(Files, self)
        self._program = pid
        if self._precision is Precision.FAULTS:
            from movepages.emulator.early_faults import EarlyFaults

            self._early = EarlyFaults(pid, read_host_cpus(), self._make_ahead)

    def handlers(self, directory: Path, *, mounted: bool) -> Mapping[str, Handler]:
        """Return who answers which call; the files that were written are below a directory."""
        handlers = {name: self._with_machine(name) for name in (*CALLS, "getcpu")}
        if self._precision is not Precision.LAZY:
            handlers |= {name: self._with_machine(name) for name in _KEEPING}
            handlers |= {name: self._once_made(name) for name in _FORGETTING}
        assert self._make_files is not None  # noqa: S101 - attached before
        files = self._make_files(directory, self._possible, mounted=mounted)
        return {**handlers, **files.handlers()}

    def report(self) -> dict[str, Any]:
        """Return what happened."""
        return self.machine().report()

    # -- the machine --------------------------------------------------------------------------

    def machine(self) -> EmulatedMachine:
        """Return the machine, which is made if need be."""
        with self._making:
            if self._machine is None:
                self._machine = self._made()
            return self._machine

    def _made(self) -> EmulatedMachine:
        from movepages.emulator.file_source import LiveFileSource

        # The program has its own environment already. No array here is worth a thread for each CPU.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        turn_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_TURN_SECONDS)
        gc.disable()
        try:
            machine = self._make()
            machine.attach(self._program, self._early.hand_over() if self._early else None)
        finally:
            gc.freeze()  # all of it stays, so no collection need look at it
            gc.enable()
            sys.setswitchinterval(turn_seconds)
        self._source, self._handlers = LiveFileSource(machine), machine.handlers()
        return machine

    def _make_ahead(self) -> None:
        try:
            self.machine()
        except Exception:  # noqa: BLE001 - the call that needs it tries again, and is accounted for
            return

    def _with_machine(self, name: str) -> Handler:
        def handle(notification: Notification) -> Reply:
            if self._handlers is None:
                self.machine()
            assert self._handlers is not None  # noqa: S101 - so is a machine made
            return self._handlers[name](notification)

        return handle

    def _once_made(self, name: str) -> Handler:
        def handle(notification: Notification) -> Reply:
            return Continue() if self._handlers is None else self._handlers[name](notification)

        return handle

    # -- what faked files say: FileSource ------------------------------------------------------

    def pid_of(self, tid: int, number: int) -> int | None:
        """Return whom a task means by a number; None for nobody."""
        return host_pid(_PROC, tid, number)

    def mems_allowed(self, tid: int) -> NodeSet:
        """Return the nodes that a task may have memory on: all, for cpusets are the host's."""
        del tid
        return self._topology.with_memory

    def used_pages(self, node: int) -> int:
        """Return how many pages of a node are in use by programs."""
        return 0 if self._source is None else self._source.used_pages(node)

    def pool(self, node: int) -> NodePool | None:
        """Return what has become of a node's pool of huge pages."""
        return None if self._source is None else self._source.pool(node)

    def attribute(self, name: str) -> bytes | None:
        """Return what an attribute says now; None for what its file says."""
        return None if self._source is None else self._source.attribute(name)

    def open_to_write(self, name: str, file: Path) -> None:
        """Take note that an attribute is about to be opened to write."""
        self._made_source().open_to_write(name, file)

    def numa_maps(self, tid: int, text: bytes) -> bytes:
        """Return the numa_maps of a task, made of the real one."""
        return self._made_source().numa_maps(tid, text)

    def _made_source(self) -> FileSource:
        if self._source is None:
            self.machine()
        assert self._source is not None  # noqa: S101 - so is a machine made
        return self._source


def defer_machine(topology: Topology, semantics: str, precision: Precision) -> DeferredMachine:
    """Declare a machine; `semantics` is a key of `declared.SEMANTICS`. Raises TopologyError."""

    def make() -> EmulatedMachine:
        from movepages.emulator.machine import EmulatedMachine

        return EmulatedMachine(topology, semantics_named(semantics), precision)

    return DeferredMachine(topology, precision, make)
