"""The tasks of the program: which share memory, which were forked from which, which have exec'ed.

Nobody tells the emulator of a fork. A task is discovered when it first makes a call that matters,
or when its parent is about to change what a fork inherits (`materialise`): so a child has the
policy and the pages that its parent had when it forked.

A task is known by its open /proc/TID/stat, which fails once the task is gone, so that a thread id
that is used again is not taken for the old one. Addresses in it tell one program image from the
next (exec): they change, while those of a child that has only forked are its parent's.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from movepages.abi import MAX_NUMNODES
from movepages.emulator.mm import Mm
from movepages.emulator.overlay import NOT_PLACED
from movepages.emulator.task_files import STAT_BYTES, children_of, parse_stat, tgid_of, threads_of
from movepages.errors import no_such_process
from movepages.linux.kcmp import same_memory

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from movepages.emulator.objects import Objects, PageObject
    from movepages.emulator.task_files import Stat
    from movepages.kernel.mempolicy import MemPolicy

_DISCOVERIES_BETWEEN_RECLAIMS = 32


@dataclass(slots=True, eq=False)
class LiveTask:
    """A task of the program, or one it has named. `mm` is None for a kernel thread or a zombie."""

    tid: int
    tgid: int
    mm: Mm | None
    started: int
    stat_file: int
    policy: MemPolicy | None = None
    il_prev: int = MAX_NUMNODES - 1
    il_weight: int = 0
    threads: int = 0
    """Of its process, when it was last looked at."""
    newest_pid: int = 0
    """Of the machine, when the tasks that its process had made were last looked for."""

    def stat(self) -> Stat:
        """Read its stat file. Raises ProcessLookupError once it is gone."""
        return parse_stat(os.pread(self.stat_file, STAT_BYTES, 0))


class Look(Protocol):
    """What has to be seen of pages and tasks to tell what a fork inherits."""

    def place(self, task: LiveTask, mm: Mm) -> None:
        """Place all pages of a process, for a fork shares them: they have one node from then on."""
        ...

    def settle_logged(self, task: LiveTask, mm: Mm) -> None:
        """Place what a thread that has ended is known to have touched, while its policy is."""
        ...

    def finish_remaps(self, mm: Mm) -> None:
        """Let what is known of pages follow them to where mremap(2) has put them."""
        ...

    def frames_of(self, mm: Mm, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the page frame of each page, 0 for none and for one that may not be seen."""
        ...

    def creator_of(self, tid: int) -> int | None:
        """Return which thread has made a task, as far as that is known."""
        ...

    def reclaim(self) -> None:
        """Let go of what belonged to tasks that have ended."""
        ...


@dataclass(slots=True, eq=False)
class Processes:
    """All tasks that are known, by thread id."""

    objects: Objects
    proc: Path
    look: Look
    first: int = 0
    """The program's first process."""
    _tasks: dict[int, LiveTask] = field(default_factory=dict)
    _left: list[Mm] = field(default_factory=list)
    """Address spaces that a task has let go of: who was the last shows when they are pruned."""
    _discovered: int = 0
    _pruning: bool = False

    def task(self, tid: int) -> LiveTask:
        """Return a task as it is now. Raises NoSuchProcessError."""
        known = self._tasks.get(tid)
        if known is None:
            return self._discover(tid)
        try:
            stat = known.stat()
        except ProcessLookupError:
            self._forget_all({known})
            return self._discover(tid)
        known.threads = stat.threads
        if stat.is_zombie:
            self._end(known)
        elif known.mm is not None and stat.image != known.mm.image:
            self._leave_memory(known)
            known.mm = self._new_mm(known.tgid, stat.image)
        if known.mm is not None:
            known.mm.through = tid
            if known.mm.remaps:
                self.look.finish_remaps(known.mm)
        return known

    def caller(self, tid: int) -> LiveTask:
        """Return the task that makes a call: what it called before has ended. Raises as `task`."""
        task = self.task(tid)
        if task.mm is not None and task.mm.remaps:
            task.mm.drop_remaps_of(tid)
        return task

    def known(self, tid: int) -> LiveTask:
        """Return a task as it was when last looked at, for what needs no memory of it.

        Raises NoSuchProcessError.
        """
        known = self._tasks.get(tid)
        if known is None:
            return self._discover(tid)
        try:
            os.pread(known.stat_file, 1, 0)
        except ProcessLookupError:  # that one has ended: this is another, by the same number
            return self.task(tid)
        return known

    def toucher(self, tid: int) -> LiveTask:
        """Return the thread that a fault is from, as it was when last looked at.

        It may have ended since: what it touched goes by its policy all the same.
        """
        return self._tasks.get(tid) or self._discover(tid)

    def materialise_own(self, caller: LiveTask) -> None:
        """Discover what the process of a waiting caller has made since it was last asked for.

        Most often that is nothing, as one look tells: no pid has been given to anybody. A process
        of several threads may be about to make a task that has its pid and is not to be seen yet.
        """
        newest = self._newest_pid()
        if caller.threads == 1 and newest == caller.newest_pid:
            return
        self.materialise(caller)
        caller.newest_pid = newest

    def _newest_pid(self) -> int:
        """Return the pid that was given last, to whatever task of this machine."""
        descriptor = os.open(f"{self.proc}/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(descriptor, STAT_BYTES).split()[4])
        finally:
            os.close(descriptor)

    def materialise(self, task: LiveTask) -> list[int]:
        """Discover the threads and children of a process, before what they inherit changes.

        Return its children.
        """
        threads = threads_of(self.proc, task.tgid)
        of_process = self.proc / str(task.tgid) / "task"
        children = [child for tid in threads for child in children_of(of_process / str(tid))]
        for tid in (*threads, *children):
            self._discover_if_new(tid)
        return children

    def materialise_all(self) -> None:
        """Discover all tasks that descend from the program's first process."""
        pids = [self.first]
        for pid in pids:
            with suppress(ProcessLookupError):
                pids += self.materialise(self.task(pid))

    def mms(self) -> list[Mm]:
        """Return all address spaces that are known, each once."""
        return list(dict.fromkeys(task.mm for task in self._tasks.values() if task.mm))

    def users(self) -> list[tuple[Mm, LiveTask]]:
        """Return all address spaces that are known, each with a task that has it."""
        return list({task.mm: task for task in self._tasks.values() if task.mm}.items())

    def prune(self) -> list[PageObject]:
        """Forget tasks that are gone; return the memory of their own that went with them."""
        if self._pruning:  # what they touched is being placed, by tasks that are discovered there
            return []
        self._pruning = True
        try:
            tasks = list(self._tasks.values())
            self._forget_all({task for task in tasks if not self._is_there(task)})
        finally:
            self._pruning = False
        used = self.mms()
        dead = [mm for mm in dict.fromkeys(self._left) if mm not in used]
        self._left.clear()
        for mm in dead:
            mm.close()
        return [thing for mm in dead for thing in mm.own.values()]

    def own_pages(self, mm: Mm, pool_order: int) -> PageObject:
        """Return what an address space has of its own of an order of pool, made when first seen."""
        found = mm.own.get(pool_order)
        if found is None:
            found = mm.own[pool_order] = self.objects.anonymous(pool_order)
        return found

    # -- discovering --------------------------------------------------------------------------

    def _discover_if_new(self, tid: int) -> None:
        if tid in self._tasks:
            return
        try:
            self._discover(tid)
        except ProcessLookupError:
            return  # it has ended since it was listed

    def _discover(self, tid: int) -> LiveTask:
        self._discovered += 1
        if self._discovered % _DISCOVERIES_BETWEEN_RECLAIMS == 0 and not self._pruning:
            self.look.reclaim()
        try:
            stat_file = os.open(self.proc / str(tid) / "stat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise no_such_process(tid, "emulate") from None
        try:
            task = self._described(tid, stat_file)
        except BaseException:
            os.close(stat_file)
            raise
        self._tasks[tid] = task
        return task

    def _described(self, tid: int, stat_file: int) -> LiveTask:
        """Return a task that is new, with what it has from the one that made it."""
        try:
            stat = parse_stat(os.pread(stat_file, STAT_BYTES, 0))
            tgid = tgid_of(self.proc / str(tid))
        except (FileNotFoundError, ProcessLookupError):
            raise no_such_process(tid, "emulate") from None
        task = LiveTask(tid, tgid, None, stat.started, stat_file)
        maker: LiveTask | None
        if tgid == tid:
            maker = self._inherit(task, stat)
        else:
            maker = leader = self.task(tgid)
            task.mm = leader.mm or self._memory_of_threads(task, stat)
        maker = self._tasks.get(self.look.creator_of(tid) or 0) or maker
        if maker is not None:
            task.policy, task.il_prev, task.il_weight = maker.policy, maker.il_prev, maker.il_weight
        if task.mm is not None:
            task.mm.through = tid
        return task

    def _inherit(self, task: LiveTask, stat: Stat) -> LiveTask | None:
        """Give a process its memory; return the one that forked it, as far as that is known."""
        has_memory = stat.size_bytes and not stat.is_zombie
        parent = self._parent(task.tid, stat.parent)
        if not has_memory:
            return parent
        source = self._memory_of(parent) if parent is not None else None
        if source is None or parent is None:
            task.mm = self._new_mm(task.tgid, stat.image)
        elif _share_memory(task.tid, parent.tid):
            task.mm = source
        elif source.image == stat.image:
            task.mm = self._forked_mm(task.tid, parent, source)
        else:
            task.mm = self._new_mm(task.tgid, stat.image)
        return parent

    def _memory_of(self, leader: LiveTask) -> Mm | None:
        """Return the memory of a process, which its other threads have if the first has ended."""
        group = (leader, *(task for task in self._tasks.values() if task.tgid == leader.tgid))
        return next((task.mm for task in group if task.mm is not None), None)

    def _parent(self, tid: int, parent: int) -> LiveTask | None:
        """Return the parent of a process of the program; None for others, and for the first."""
        if tid == self.first or parent in {0, 1, os.getpid()}:
            return None
        if parent not in self._tasks and not self._descends(parent):
            return None
        try:
            return self.task(parent)
        except ProcessLookupError:  # it has ended since
            return None

    def _descends(self, pid: int) -> bool:
        """Tell whether a process is one of the program's."""
        while pid > 1:
            if pid == self.first or pid in self._tasks:
                return True
            try:
                pid = parse_stat((self.proc / str(pid) / "stat").read_bytes()).parent
            except (FileNotFoundError, ProcessLookupError):
                return False
        return False

    def _new_mm(self, pid: int, image: tuple[int, ...]) -> Mm:
        return Mm(pid, image, self.objects.anonymous(), self.proc)

    def _forked_mm(self, pid: int, parent: LiveTask, source: Mm) -> Mm:
        """Return the memory of a child: what its parent had, as far as is known.

        All is shared from the fork on, so that a page with another frame was copied on write since.
        The parent may have placed or copied pages before the fork that nobody has seen yet: those
        that the child has in the same frame it has from there.
        """
        mm = self._new_mm(pid, source.image)
        mm.anonymous.policies = source.anonymous.policies.copy()
        for order, thing in source.own.items():
            self.own_pages(mm, order).pages = thing.pages.copy()
        with suppress(ProcessLookupError):  # the parent is about to be gone
            self.look.place(parent, source)
        for order, thing in source.own.items():
            theirs, ours = thing.pages, self.own_pages(mm, order).pages
            pages = theirs.placed()
            frames = self.look.frames_of(mm, pages)
            same = (frames != 0) & (frames == theirs.frames(pages))
            ours.adopt(theirs, pages[same | (ours.nodes(pages) == NOT_PLACED)])
        source.relatives.append(mm)
        mm.relatives = source.relatives
        return mm

    def _memory_of_threads(self, task: LiveTask, stat: Stat) -> Mm | None:
        """Return the memory of a process whose first thread has ended, as one of the others."""
        known = [other.mm for other in self._tasks.values() if other.tgid == task.tgid]
        for mm in (*known, *self._left):
            if mm is not None and (mm.pid, mm.image) == (task.tgid, stat.image):
                return mm
        self._inherit(task, stat)
        return task.mm

    def _is_there(self, task: LiveTask) -> bool:
        """Tell whether a task can be looked at, be it as a zombie."""
        try:
            stat = task.stat()
        except ProcessLookupError:
            return False
        task.threads = stat.threads
        if stat.is_zombie:
            self._end(task)
        elif task.mm is not None:
            task.mm.through = task.tid
        return True

    def _end(self, task: LiveTask) -> None:
        """Take its memory from a zombie; of a process that goes on, the other threads have it."""
        had_memory = task.mm is not None
        self._leave_memory(task)
        if had_memory and task.threads > 1:
            for thread in threads_of(self.proc, task.tgid):
                self._discover_if_new(thread)

    def _leave_memory(self, task: LiveTask) -> None:
        if task.mm is not None:
            task.mm.drop_remaps_of(task.tid)
            self._left.append(task.mm)
            task.mm = None

    def _forget_all(self, gone: set[LiveTask]) -> None:
        """Forget tasks; what they have touched of memory that others have goes by their policy."""
        left = {task.mm for task in self._tasks.values() if task not in gone}
        for mm, task in {task.mm: task for task in gone}.items():
            if mm is not None and mm in left:
                self.look.settle_logged(task, mm)
        for task in gone:
            self._leave_memory(task)
            os.close(task.stat_file)
            del self._tasks[task.tid]


def _share_memory(tid: int, parent: int) -> bool:
    """Tell whether a task has the memory of the one that made it; not if either has ended since."""
    try:
        return same_memory(tid, parent)
    except ProcessLookupError:
        return False
