"""Which file a path means to a task, as far as it is one that tells of nodes.

A path is walked as the task itself would: from its own directory, descriptor or root, through the
links that it sees. `/proc` is taken to be procfs: one that is mounted elsewhere is not recognised,
and what else is mounted on `/proc` is mistaken for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from movepages.emulator.sysfs import NODES, WEIGHTS, WHOLE

AT_FDCWD = -100
_MAX_LINKS = 40  # MAXSYMLINKS in include/linux/namei.h

_PROC = re.compile(rb"/proc/(self|[0-9]+)(?:/task/(\x00|[0-9]+))?/(status|numa_maps)")
_COUNTERS = re.compile(rb"/sys/devices/system/node/node([0-9]+)/(meminfo|numastat|vmstat)")
_ATTRIBUTES = re.compile(
    rb"/sys/(?:%s/node[0-9]+/hugepages/hugepages-[0-9]+kB/(?:nr|free|surplus)_hugepages"
    rb"|%s/node[0-9]+)" % (NODES.encode(), WEIGHTS.encode())
)
_TREE = re.compile(
    rb"/sys/(?:(?:%s)(?:/.*)?|devices/system/cpu/cpu[0-9]+/node[0-9]+)"
    % b"|".join(name.encode() for name in WHOLE),
    re.DOTALL,
)
_NO_PATH = re.compile(rb"\w+:\[[0-9]+\]")  # where a link in /proc/PID leads to no file
_DELETED = b" (deleted)"
_ITSELF = b"self"
_OWN_THREAD = b"\0"  # /proc/thread-self is /proc/self/task/NUMBER; no path holds this byte


class ProcFile(NamedTuple):
    """A file of a process, by the numbers in its path; None stands for the task that asks.

    `thread` is `process` where the path names no thread. `name` is `status` or `numa_maps`.
    """

    process: int | None
    thread: int | None
    name: str
    of_thread: bool
    """Whether the path has /task/ in it."""


class CounterFile(NamedTuple):
    """A file of a node whose numbers follow what is in use: `meminfo`, `numastat`, `vmstat`."""

    node: int
    name: str


class SysFile(NamedTuple):
    """A file or directory of the generated tree that is not mounted, or one that it links to."""

    path: bytes
    """Where we find it: in the place where the tree stands, or in the real /sys."""


class AttributeFile(NamedTuple):
    """A file whose value may change, and which root may set, by its path in /sys."""

    name: str


Recognised = ProcFile | CounterFile | AttributeFile | SysFile


class Walked(NamedTuple):
    """A path without links, blanks and dots, and whether the task would not come there without us.

    `/proc/self` is kept as it is.
    """

    path: bytes
    through_tree: bool


@dataclass(frozen=True, slots=True)
class PathView:
    """The files as a task sees them; where nothing is mounted, with the generated tree in /sys.

    `tree` is the directory that holds the tree, None where it is mounted: then it is seen anyway.
    """

    tid: int
    tree: bytes | None = None

    def absolute(self, dirfd: int, path: bytes) -> bytes | None:
        """Return the path that a pair of arguments names; links are not followed yet.

        None where it names nothing: an empty path, or a descriptor that is no directory.
        """
        if path.startswith(b"/") or not path:
            return path or None
        link = b"cwd" if dirfd == AT_FDCWD else b"fd/%d" % dirfd
        directory = self._readlink_of_task(link)
        if directory is None or not directory.startswith(b"/") or directory.endswith(_DELETED):
            return None
        return self._as_seen(directory) + b"/" + path

    def resolve(self, path: bytes, *, follow: bool) -> Walked | None:
        """Walk an absolute path; None where it leads nowhere.

        The last component may be missing. Where it is a link, it is followed only on demand.
        """
        pending = path.split(b"/")[::-1]
        done: list[bytes] = []
        links, through_tree = 0, False
        while pending and links <= _MAX_LINKS:
            name = pending.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                if not os.path.isdir(self._location(done)):  # noqa: PTH112 - bytes
                    return None
                done = done[:-1]
                continue
            if done == [b"proc"] and name in {b"self", b"thread-self"}:
                done += [_ITSELF] if name == b"self" else [_ITSELF, b"task", _OWN_THREAD]
                links += 1
                continue
            done.append(name)
            target = self._link(done) if pending or follow else None
            if target is None:
                continue
            links += 1
            through_tree |= self._in_tree(b"/" + b"/".join(done))
            if _NO_PATH.fullmatch(target):
                return None
            done = [] if target.startswith(b"/") else done[:-1]
            pending += target.split(b"/")[::-1]
        if links > _MAX_LINKS:
            return None
        return Walked(b"/" + b"/".join(done), through_tree)

    def recognise(self, walked: Walked) -> Recognised | None:
        """Return which file is at the end of a walk; None for all that are not ours."""
        path = walked.path
        if match := _PROC.fullmatch(path):
            process = _number(match[1])
            thread = process if match[2] is None else _number(match[2])
            return ProcFile(process, thread, match[3].decode(), match[2] is not None)
        if match := _COUNTERS.fullmatch(path):
            return CounterFile(int(match[1]), match[2].decode())
        if _ATTRIBUTES.fullmatch(path):
            return AttributeFile(path.decode())
        if self.tree is not None and _TREE.fullmatch(path):
            return SysFile(self.tree + path)
        return SysFile(path) if walked.through_tree else None

    def _in_tree(self, path: bytes) -> bool:
        return self.tree is not None and _TREE.fullmatch(path) is not None

    def _link(self, components: list[bytes]) -> bytes | None:
        """Return where a path leads if it is a link."""
        try:
            return os.readlink(self._location(components))  # noqa: PTH115 - bytes
        except OSError:  # most are none, and what cannot be looked at is for the kernel to refuse
            return None

    def _location(self, components: list[bytes]) -> bytes:
        """Return where we find what the task finds at a path."""
        path = b"/" + b"/".join(components)
        if components[:2] == [b"proc", _ITSELF]:
            own = 4 if components[2:4] == [b"task", _OWN_THREAD] else 2
            return b"/".join([b"/proc/%d" % self.tid, *components[own:]])
        if self.tree is not None and _TREE.fullmatch(path):
            return self.tree + path
        return b"/proc/%d/root%s" % (self.tid, path)

    def _as_seen(self, path: bytes) -> bytes:
        """Return a path of ours as the task would write it."""
        if self.tree is not None and path.startswith(self.tree + b"/sys/"):
            return path.removeprefix(self.tree)
        root = self._readlink_of_task(b"root") or b"/"
        return path if root == b"/" else path.removeprefix(root) or b"/"

    def _readlink_of_task(self, name: bytes) -> bytes | None:
        try:
            return os.readlink(b"/proc/%d/%s" % (self.tid, name))  # noqa: PTH115 - bytes
        except OSError:  # it has ended, has no such descriptor, or is not ours to look at
            return None


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() else None
