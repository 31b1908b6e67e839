"""The machine that an emulated program sees: what it declares, and what has become of its pages.

Joins the objects that pages belong to, the tasks, the nodes' capacity and the frames port, and has
the rule by which state stays right though nobody tells of every touch and fork: settle before
change. Whatever decides where a page is, or what a child inherits, is first applied to all that it
has decided already, and then changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.calls import NumaCalls
from movepages.emulator.capacity import Capacity
from movepages.emulator.fault_log import FaultRecorder
from movepages.emulator.file_source import LiveFileSource
from movepages.emulator.files import Files
from movepages.emulator.filter import Precision
from movepages.emulator.frames import LiveFrames
from movepages.emulator.host_cpus import place_cpus, read_host_cpus
from movepages.emulator.live_area import file_key
from movepages.emulator.map_changes import MapChanges
from movepages.emulator.objects import Objects
from movepages.emulator.processes import Processes
from movepages.emulator.seen import find_user_pages
from movepages.emulator.sysfs import as_booted, write_tree
from movepages.emulator.touched import Assumed, Logged, Touchers
from movepages.kernel.mempolicy import Surroundings
from movepages.kernel.zonelists import build_zonelists
from movepages.linux.page_facts import find_reader
from movepages.linux.perf_event import open_fault_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from movepages.emulator.live_area import LiveArea
    from movepages.emulator.objects import PageObject
    from movepages.emulator.processes import LiveTask, Mm
    from movepages.emulator.replies import Handler
    from movepages.kernel.semantics import Semantics
    from movepages.topology import Topology

    Pages = NDArray[np.int64]

_RING_PAGES, _USER_RING_PAGES = 512, 128
"""Of the log of faults, for each CPU: a page has room for a hundred faults."""
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a directory of its own there
_ALL_PAGES = 0, 1 << 52


class EmulatedMachine:
    """Answers the calls of a tree of tasks as a machine of that topology would."""

    def __init__(
        self,
        topology: Topology,
        semantics: Semantics,
        precision: Precision,
        *,
        page_size_bytes: int = 4096,
        proc: Path = Path("/proc"),
    ) -> None:
        """Declare the machine; nothing runs yet. Raises TopologyError."""
        placed = place_cpus(topology, read_host_cpus())
        self.topology, self.notice = placed.topology, placed.notice
        # A live program can be crashed by nothing that an emulated kernel does.
        self.semantics = replace(semantics, crashes=False)
        self.precision = precision
        self.online, self.with_memory = placed.topology.online, placed.topology.with_memory
        self.nr_node_ids = max(placed.topology.possible | self.online) + 1
        self.page_size_bytes = page_size_bytes
        self.page_shift = page_size_bytes.bit_length() - 1
        self.thp_order = (page_size_bytes // 8).bit_length() - 1
        self.objects = Objects()
        self.ksm = self.objects.anonymous()
        """Pages that KSM has merged, by page frame."""
        self.touchers: Touchers = Assumed(self._on_cpu)
        self.processes = Processes(self.objects, proc, self)
        self.capacity = Capacity(self.topology, page_size_bytes, self.reclaim)
        self._zonelists = build_zonelists(self.topology)
        self._weights = {node.id: node.weight or 1 for node in self.topology}
        self.frames = LiveFrames(self.objects, self.processes, self.capacity, self._zonelists)
        self.page_facts = find_reader(page_size_bytes, proc.parent)
        self.user_pages = find_user_pages(page_size_bytes, proc.parent)
        self.losses: Counter[str] = Counter()
        self._surroundings: dict[int, Surroundings] = {}
        """By CPU."""
        self._recorder: FaultRecorder | None = None
        self._directory: Path | None = None
        self._mounted = False

    # -- what the one who runs the program asks -----------------------------------------------

    def handlers(self) -> Mapping[str, Handler]:
        """Return who answers which call."""
        handlers = NumaCalls(self).handlers()
        if self.precision is not Precision.LAZY:
            handlers |= MapChanges(self).handlers()
        if self._directory is None:
            return handlers
        files = Files(
            LiveFileSource(self),
            self._directory,
            self.nr_node_ids,
            mounted=self._mounted,
        )
        return {**handlers, **files.handlers()}

    def mounts(self) -> list[tuple[Path, Path]]:
        """Return what is to be mounted where."""
        self._directory = Path(tempfile.mkdtemp(prefix="movepages-", dir=_temporary()))
        return write_tree(as_booted(self.topology), self._directory)

    def attach(self, pid: int, *, mounted: bool) -> None:
        """Learn which process will be the program."""
        self.processes.first = pid
        self._mounted = mounted
        if self.precision is Precision.FAULTS:
            self._recorder = _open_recorder(pid)
            self._recorder.__enter__()
            self.touchers = Logged(self._recorder, self._on_cpu, self.processes.known)

    def report(self) -> dict[str, Any]:
        """Return what happened, where precision was lost, and what the emulator itself holds.

        Pages moved and pages by node; descriptors that are open, and the most memory ever used.
        """
        self.reclaim()
        used = {node: int(self.capacity.used[node]) for node in self.online}
        return {
            "pages_moved": self.frames.moved,
            "pages_by_node": used,
            "losses": {**self.losses, **self.touchers.report()},
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }

    def close(self) -> None:
        """Remove the generated files, and end the log of faults."""
        if self._recorder is not None:
            self._recorder.__exit__(None, None, None)
        if self._directory is not None:
            shutil.rmtree(self._directory)

    # -- where things are ---------------------------------------------------------------------

    def node_of_cpu(self, cpu: int) -> int:
        """Return the node of a CPU; one that came online later belongs to the first node."""
        try:
            return self.topology.node_of_cpu(cpu)
        except KeyError:
            return min(self.online)

    def surroundings(self, task: LiveTask) -> Surroundings:
        """Return what an allocation of a task goes by beside its policy."""
        return self._on_cpu(task.stat().cpu)

    def policed(self, mm: Mm, area: LiveArea, page: int) -> tuple[PageObject, int]:
        """Return what the policy of a page of an area belongs to, and which page of that it is.

        A file in memory has its own, whoever maps it and how (shmem_set_policy); else it is the
        area's.
        """
        if area.file is not None and not area.page_cache and not area.order:
            return area.file, page - area.start + area.file_page
        return mm.anonymous, page

    def frames_of(self, mm: Mm, pages: Pages) -> Pages:
        """Return the page frame of each page, 0 for none and for one that may not be seen."""
        return self.page_facts.read(mm.pagemap, pages.astype(np.uint64)).pfn.astype(np.int64)

    def creator_of(self, tid: int) -> int | None:
        """Return which thread has made a task, as far as that is known."""
        return self.touchers.creator_of(tid)

    # -- settle before change -----------------------------------------------------------------

    def settle(self, task: LiveTask, mm: Mm) -> None:
        """Place all that a process has touched."""
        LiveAddressSpace.of(self, task, mm).settle(0, self.user_pages)

    def before_policy_change(self, task: LiveTask) -> None:
        """Apply a task's policy to all that it has touched, and to what it has forked."""
        self.processes.materialise_own(task)
        if task.mm is not None:
            self.settle(task, task.mm)

    def before_map_change(self, space: LiveAddressSpace, start: int, end: int) -> None:
        """Apply the policies of a range of pages to what has been touched of it."""
        self.processes.materialise_own(space.task)
        space.settle(start, end)

    def before_move(self, caller: LiveTask, pid: int) -> None:
        """Let the children of a process inherit where its pages are, before these move."""
        if pid <= 0:
            self.processes.materialise_own(caller)
            return
        with suppress(ProcessLookupError):
            self.processes.materialise(self.processes.task(pid))

    def forget_range(self, task: LiveTask, start: int, end: int, *, policies: bool) -> None:
        """Forget the anonymous pages of a range that is about to be unmapped or dropped."""
        if task.mm is None:
            return
        self.processes.materialise_own(task)
        anonymous = task.mm.anonymous
        self.capacity.release(anonymous.pages.forget(start, end))
        if policies:
            anonymous.policies.set(start, end, None)

    def set_aside(self, task: LiveTask, start: int, end: int) -> None:
        """Keep the nodes of pages that are about to be mapped elsewhere, by page frame."""
        if task.mm is None:
            return
        self.processes.materialise_own(task)
        LiveAddressSpace.of(self, task, task.mm).settle(start, end)
        pages = task.mm.anonymous.pages
        placed = pages.placed()
        placed = placed[(placed >= start) & (placed < end)]
        frames = pages.frames(placed)
        if not frames.all():
            self.losses["pages that were remapped, whose frames may not be seen"] += len(placed)
        task.mm.limbo.add(frames[frames != 0], pages.nodes(placed)[frames != 0])
        self.capacity.release(pages.forget(start, end))

    def reclaim(self) -> None:
        """Release the pages of processes that are gone, and of memory that only they had mapped."""
        for thing in self.processes.prune():
            self.capacity.release(thing.pages.forget(*_ALL_PAGES))
            self.objects.drop(thing)
        mapped = set()
        for mm in self.processes.mms():
            with suppress(PermissionError):  # a process that was named, and is not the caller's
                mapped |= {file_key(vma) for vma in mm.areas.above(0)}
        for file in self.objects.drop_vanished(mapped):
            self.capacity.release(file.pages.forget(*_ALL_PAGES))

    def _on_cpu(self, cpu: int) -> Surroundings:
        known = self._surroundings.get(cpu)
        if known is None:
            known = self._surroundings[cpu] = Surroundings(
                self.node_of_cpu(cpu),
                self.with_memory,
                self._zonelists,
                self._weights,
                self.semantics,
                self.online,
            )
        return known


def _temporary() -> Path | None:
    """Return where to write files for a while: in memory, unless the user names a place."""
    named = "TMPDIR" in os.environ or not os.access(_IN_MEMORY, os.W_OK | os.X_OK)
    return None if named else _IN_MEMORY


def _open_recorder(pid: int) -> FaultRecorder:
    """Log the faults of a task and its children, with what a user may lock for it."""
    cpus = read_host_cpus()
    try:
        return FaultRecorder(open_fault_log(pid, cpus, _RING_PAGES, exclude_kernel=False))
    except PermissionError:  # a user, be it as root of a user namespace
        return FaultRecorder(open_fault_log(pid, cpus, _USER_RING_PAGES, exclude_kernel=True))
