"""The machine that an emulated program sees: what it declares, and what has become of its pages.

Joins the objects that pages belong to, the tasks, the nodes' capacity and the frames port, and has
the rule by which state stays right though nobody tells of every touch and fork: settle before
change. Whatever decides where a page is, or what a child inherits, is first applied to all that it
has decided already, and then changed.
"""

from __future__ import annotations

import resource
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.emulator import remaps
from movepages.emulator.address_space import LiveAddressSpace
from movepages.emulator.attributes import Attributes
from movepages.emulator.calls import NumaCalls
from movepages.emulator.capacity import Capacity
from movepages.emulator.fault_log import FaultRecorder
from movepages.emulator.filter import Precision
from movepages.emulator.frames import LiveFrames
from movepages.emulator.host_cpus import place_cpus, read_host_cpus
from movepages.emulator.large_folios import LargeFolios
from movepages.emulator.map_changes import MapChanges
from movepages.emulator.mapped_files import MappedFiles, number_of
from movepages.emulator.merged_pages import MergedPages
from movepages.emulator.objects import Objects
from movepages.emulator.pools import Hstates, are_in_use_on_host
from movepages.emulator.processes import Processes
from movepages.emulator.seen import find_user_pages
from movepages.emulator.settings import settings_of
from movepages.emulator.sysfs import read_huge_page_sizes
from movepages.emulator.touched import Assumed, Logged, Touchers
from movepages.kernel.mempolicy import Surroundings
from movepages.kernel.zonelists import build_zonelists
from movepages.linux.page_facts import find_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from movepages.emulator.live_area import LiveArea
    from movepages.emulator.mm import Mm
    from movepages.emulator.objects import PageObject
    from movepages.emulator.processes import LiveTask
    from movepages.emulator.replies import Handler
    from movepages.kernel.semantics import Semantics
    from movepages.linux.page_facts import PageFactReader
    from movepages.linux.perf_event import FaultLog
    from movepages.topology import Topology

    Pages = NDArray[np.int64]

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
        page_facts: PageFactReader | None = None,
    ) -> None:
        """Declare the machine; nothing runs yet. Raises TopologyError.

        `page_facts` is how facts about pages are had, by default in the best way that works here.
        """
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
        self.files = MappedFiles(self.objects, proc)
        self.merged_pages = MergedPages(self.objects.anonymous(), proc.parent)
        self.touchers: Touchers = Assumed(self._on_cpu)
        self.processes = Processes(self.objects, proc, self)
        self.capacity = Capacity(self.topology, page_size_bytes, self.reclaim)
        sizes = read_huge_page_sizes()
        self.pools = Hstates(self.topology, page_size_bytes, sizes, self.capacity)
        self._zonelists = build_zonelists(self.topology)
        self.weights = {node.id: node.weight or 1 for node in self.topology}
        """Of nodes, for weighted interleaving."""
        self.attributes = Attributes(dict(settings_of(self)), self.settle_all)
        self.large_folios = LargeFolios(self.processes, self.thp_order, self.page_shift)
        self.frames = LiveFrames(
            self.objects, self.processes, self.large_folios, self.pools, self._zonelists
        )
        self.page_facts = page_facts or find_reader(page_size_bytes, proc.parent)
        self.user_pages = find_user_pages(page_size_bytes, proc.parent)
        self.losses: Counter[str] = Counter()
        self._surroundings: dict[int, Surroundings] = {}
        """By CPU."""
        self._recorder: FaultRecorder | None = None

    # -- what the one who runs the program asks -----------------------------------------------

    def handlers(self) -> Mapping[str, Handler]:
        """Return who answers which call."""
        handlers = NumaCalls(self).handlers()
        if self.precision is not Precision.LAZY:
            handlers |= MapChanges(self).handlers()
        return handlers

    def attach(self, pid: int, log: FaultLog | None) -> None:
        """Learn which process is the program, and take over the log of its faults if there is one.

        Nothing has been asked yet.
        """
        self.processes.first = pid
        if log is not None:
            self._recorder = FaultRecorder(log)
            self._recorder.__enter__()
            self.touchers = Logged(self._recorder, self._on_cpu, self.processes.toucher)

    def report(self) -> dict[str, Any]:
        """Return what happened, where precision was lost, and what the emulator itself holds.

        Pages moved and pages by node; descriptors that are open, and the most memory ever used.
        """
        self.reclaim()
        used = self.capacity.used - self.pools.held() + self.pools.used()
        return {
            "pages_moved": self.frames.moved,
            "pages_by_node": {node: int(used[node]) for node in self.online},
            "losses": {**self.losses, **self.touchers.report()},
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }

    def close(self) -> None:
        """End the log of faults."""
        if self._recorder is not None:
            self._recorder.__exit__(None, None, None)

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

    def place(self, task: LiveTask, mm: Mm) -> None:
        """Place all pages of a process, for a fork shares them: they have one node from then on."""
        LiveAddressSpace.of(self, task, mm).place(0, self.user_pages)

    def settle_logged(self, task: LiveTask, mm: Mm) -> None:
        """Place what a thread that has ended is known to have touched, while its policy is."""
        if self._recorder is not None:
            with suppress(OSError):  # the others that have the memory are about to go as well
                self.settle(task, mm)

    def settle_all(self) -> None:
        """Place all that anybody has touched, before what a pool or a weight says changes."""
        self.processes.materialise_all()
        for mm, task in self.processes.users():
            with suppress(OSError, EOFError):  # it has ended, or is not the caller's to look at
                self.settle(task, mm)

    def count_huge_pages(self) -> None:
        """Find out what has been taken of the pools of huge pages, and what has come back.

        As long as nobody on the host has any, that is nothing.
        """
        if not self.pools.used().any() and not are_in_use_on_host():
            return
        self.processes.materialise_all()
        shift = self.page_shift
        for mm, task in self.processes.users():
            with suppress(OSError, EOFError):
                for vma in mm.areas.above(0):
                    if (vma.page_size_bytes or 0) > self.page_size_bytes:
                        space = LiveAddressSpace.of(self, task, mm)
                        space.settle(vma.start >> shift, vma.end >> shift)
        self.reclaim()

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
        self.touchers.forget(task.tgid, start, end)
        for thing in task.mm.own.values():
            self.forget_pages(thing, start, end)
        if policies:
            task.mm.anonymous.policies.set(start, end, None)

    def forget_pages(self, thing: PageObject, start: int, end: int) -> None:
        """Forget some pages of an object, and give up the room that they had."""
        self.pools.room(thing.pool_order).release(thing.pages.forget(start, end))

    def finish_remaps(self, mm: Mm) -> None:
        """Let what is known of pages follow them to where mremap(2) has put them."""
        remaps.finish(self, mm)

    def reclaim(self) -> None:
        """Release the pages of processes that are gone, and of memory that only they had mapped."""
        for thing in self.processes.prune():
            self.forget_pages(thing, *_ALL_PAGES)
            self.objects.drop(thing)
        mapped = set()
        for mm in self.processes.mms():
            with suppress(ProcessLookupError, PermissionError):  # gone, or named and another's
                mapped |= {number_of(vma) for vma in mm.areas.above(0)}
        for file in self.files.drop_gone(mapped):
            self.forget_pages(file, *_ALL_PAGES)
            self.objects.drop(file)
        self.merged_pages.drop_gone()

    def _on_cpu(self, cpu: int) -> Surroundings:
        known = self._surroundings.get(cpu)
        if known is None:
            known = self._surroundings[cpu] = Surroundings(
                self.node_of_cpu(cpu),
                self.with_memory,
                self._zonelists,
                self.weights,
                self.semantics,
                self.online,
            )
        return known
