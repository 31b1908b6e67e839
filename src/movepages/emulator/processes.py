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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from movepages.abi import MAX_NUMNODES
from movepages.emulator.overlay import NOT_PLACED
from movepages.errors import no_such_process
from movepages.linux.kcmp import same_memory
from movepages.linux.procmap import VmaSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from movepages.emulator.objects import Objects, PageObject
    from movepages.kernel.mempolicy import MemPolicy

_STAT_BYTES = 1024
_DISCOVERIES_BETWEEN_RECLAIMS = 32
_ZOMBIE_STATES = frozenset("ZX")


class Stat(NamedTuple):
    """What /proc/TID/stat says that matters here."""

    state: str
    parent: int
    threads: int
    started: int
    size_bytes: int
    cpu: int
    image: tuple[int, ...]
    """Addresses that exec chooses anew: code, stack, arguments."""


class Limbo:
    """Nodes of pages that mremap has taken from one place and not been seen to put at another."""

    def __init__(self) -> None:
        """Begin with none."""
        self._frames = np.empty(0, dtype=np.int64)
        self._nodes = np.empty(0, dtype=np.int8)

    def add(self, frames: NDArray[np.int64], nodes: NDArray[np.int8]) -> None:
        """Take pages in, by page frame."""
        frames = np.concatenate([frames, self._frames])
        nodes = np.concatenate([nodes, self._nodes])
        self._frames, newest = np.unique(frames, return_index=True)
        self._nodes = nodes[newest]

    def take(self, frames: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return the node of each page frame that is here, and let go of it; else NOT_PLACED."""
        nodes = np.full(len(frames), NOT_PLACED, dtype=np.int8)
        if not len(self._frames):
            return nodes
        at = np.minimum(np.searchsorted(self._frames, frames), len(self._frames) - 1)
        here = self._frames[at] == frames
        nodes[here] = self._nodes[at[here]]
        left = np.ones(len(self._frames), dtype=np.bool_)
        left[at[here]] = False
        self._frames, self._nodes = self._frames[left], self._nodes[left]
        return nodes


class Mm:
    """An address space, with the files through which the kernel tells of it."""

    def __init__(self, pid: int, image: tuple[int, ...], anonymous: PageObject, root: Path) -> None:
        """`pid` is a task that has it; `image` tells when that one has exec'ed."""
        self.pid, self.image, self.anonymous = pid, image, anonymous
        self.relatives: list[Mm] = [self]
        """Address spaces that came of one another by fork, and may share pages with this one."""
        self.limbo = Limbo()
        self._root = root
        self._pagemap = -1
        self._areas: VmaSource | None = None

    @property
    def pagemap(self) -> int:
        """The descriptor of its pagemap."""
        if self._pagemap < 0:
            self._pagemap = os.open(
                self._root / str(self.pid) / "pagemap", os.O_RDONLY | os.O_CLOEXEC
            )
        return self._pagemap

    @property
    def areas(self) -> VmaSource:
        """Where to ask for its areas."""
        if self._areas is None:
            self._areas = VmaSource(self.pid, self._root.parent)
        return self._areas

    def close(self) -> None:
        """Let go of its files."""
        if self._pagemap >= 0:
            os.close(self._pagemap)
        if self._areas is not None:
            self._areas.close()
        self._pagemap, self._areas = -1, None
        self.relatives.remove(self)


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
        return parse_stat(os.pread(self.stat_file, _STAT_BYTES, 0))


class Look(Protocol):
    """What has to be seen of pages and tasks to tell what a fork inherits."""

    def settle(self, task: LiveTask, mm: Mm) -> None:
        """Place all that a process has touched."""
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

    def task(self, tid: int) -> LiveTask:
        """Return a task as it is now. Raises NoSuchProcessError."""
        known = self._tasks.get(tid)
        if known is None:
            return self._discover(tid)
        try:
            stat = known.stat()
        except ProcessLookupError:
            self._forget(known)
            return self._discover(tid)
        known.threads = stat.threads
        if stat.state in _ZOMBIE_STATES:
            self._leave_memory(known)
        elif known.mm is not None and stat.image != known.mm.image:
            self._leave_memory(known)
            known.mm = self._new_mm(known.tgid, stat.image)
        return known

    def known(self, tid: int) -> LiveTask:
        """Return a task as it was when last looked at, for what needs no memory of it."""
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
            return int(os.read(descriptor, _STAT_BYTES).split()[4])
        finally:
            os.close(descriptor)

    def materialise(self, task: LiveTask) -> None:
        """Discover the threads and children of a process, before what they inherit changes."""
        try:
            threads = list((self.proc / str(task.tgid) / "task").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return
        for thread in threads:
            self._discover_if_new(int(thread.name))
            for child in _children(thread):
                self._discover_if_new(child)

    def mms(self) -> list[Mm]:
        """Return all address spaces that are known, each once."""
        return list(dict.fromkeys(task.mm for task in self._tasks.values() if task.mm))

    def prune(self) -> list[PageObject]:
        """Forget tasks that are gone; return the anonymous memory that went with them."""
        for task in list(self._tasks.values()):
            try:
                if task.stat().state in _ZOMBIE_STATES:
                    self._leave_memory(task)
            except ProcessLookupError:
                self._forget(task)
        used = self.mms()
        dead = [mm for mm in dict.fromkeys(self._left) if mm not in used]
        self._left.clear()
        for mm in dead:
            mm.close()
        return [mm.anonymous for mm in dead]

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
        if self._discovered % _DISCOVERIES_BETWEEN_RECLAIMS == 0:
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
            stat = parse_stat(os.pread(stat_file, _STAT_BYTES, 0))
            tgid = _tgid(self.proc / str(tid))
        except (FileNotFoundError, ProcessLookupError):
            raise no_such_process(tid, "emulate") from None
        task = LiveTask(tid, tgid, None, stat.started, stat_file)
        maker: LiveTask | None
        if tgid == tid:
            maker = self._inherit(task, stat)
        else:
            maker = leader = self.task(tgid)
            task.mm = leader.mm
        maker = self._tasks.get(self.look.creator_of(tid) or 0) or maker
        if maker is not None:
            task.policy, task.il_prev, task.il_weight = maker.policy, maker.il_prev, maker.il_weight
        return task

    def _inherit(self, task: LiveTask, stat: Stat) -> LiveTask | None:
        """Give a process its memory; return the one that forked it, as far as that is known."""
        has_memory = stat.size_bytes and stat.state not in _ZOMBIE_STATES
        parent = self._parent(task.tid, stat.parent)
        if not has_memory:
            return parent
        source = parent.mm if parent is not None else None
        if source is not None and parent is not None and same_memory(task.tid, parent.tid):
            task.mm = source
        elif source is not None and parent is not None and source.image == stat.image:
            task.mm = self._forked_mm(task.tid, parent, source)
        else:
            task.mm = self._new_mm(task.tgid, stat.image)
        return parent

    def _parent(self, tid: int, parent: int) -> LiveTask | None:
        """Return the parent of a process of the program; None for others, and for the first."""
        if tid == self.first or parent in {0, 1, os.getpid()}:
            return None
        if parent in self._tasks:
            return self.task(parent)
        return self.task(parent) if self._descends(parent) else None

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
        theirs = source.anonymous.pages
        ours = mm.anonymous.pages = theirs.copy()
        mm.anonymous.policies = source.anonymous.policies.copy()
        self.look.settle(parent, source)
        pages = theirs.placed()
        frames = self.look.frames_of(mm, pages)
        same = (frames != 0) & (frames == theirs.frames(pages))
        ours.adopt(theirs, pages[same | (ours.nodes(pages) == NOT_PLACED)])
        source.relatives.append(mm)
        mm.relatives = source.relatives
        return mm

    def _leave_memory(self, task: LiveTask) -> None:
        if task.mm is not None:
            self._left.append(task.mm)
            task.mm = None

    def _forget(self, task: LiveTask) -> None:
        self._leave_memory(task)
        os.close(task.stat_file)
        del self._tasks[task.tid]


def parse_stat(data: bytes) -> Stat:
    """Read /proc/TID/stat; the name in it may hold anything, a parenthesis as well."""
    if not data:
        raise ProcessLookupError
    fields = data[data.rindex(b")") + 2 :].split()
    return Stat(
        state=fields[0].decode(),
        parent=int(fields[1]),
        threads=int(fields[17]),
        started=int(fields[19]),
        size_bytes=int(fields[20]),
        cpu=int(fields[36]),
        image=tuple(int(fields[index]) for index in (23, 24, 25, 45)),
    )


def _children(thread: Path) -> Iterator[int]:
    """Go through the children that a thread has forked, given its directory in /proc."""
    try:
        text = (thread / "children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return
    yield from map(int, text.split())


def _tgid(directory: Path) -> int:
    for line in (directory / "status").read_bytes().splitlines():
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    raise ProcessLookupError
