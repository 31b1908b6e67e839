"""The tree of processes below this one, and how to end it.

A process that calls `adopt_orphans` becomes the parent of descendants whose own parent has ended,
daemons included, so that the whole tree can always be found from above; without root or a cgroup.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from movepages.linux import libc

if TYPE_CHECKING:
    from collections.abc import Set


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends (PR_SET_CHILD_SUBREAPER)."""
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)


def descendants(spared: Set[int] = frozenset()) -> set[int]:
    """Return the processes below this one, zombies left out, without the trees of those spared."""
    if not _has_children():  # reading all of /proc takes a while
        return set()
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _state_and_parent(entry / "stat")):
            state, parent = stat
            children[parent].append(-int(entry.name) if state == "Z" else int(entry.name))
    found: set[int] = set()
    below = children[os.getpid()]
    while below:
        # The children of a zombie belong to its adopter already.
        new = {pid for pid in below if pid > 0 and pid not in spared}
        found |= new
        below = [child for pid in new for child in children[pid]]
    return found


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _state_and_parent(stat: Path) -> tuple[str, int] | None:
    try:
        text = stat.read_bytes()
    except OSError:  # it has ended
        return None
    state, parent, *_ = text.rpartition(b")")[2].split()
    return state.decode(), int(parent)


def end_descendants(spared: Set[int] = frozenset()) -> int:
    """Kill all processes below this one and wait until they are gone; return how many there were.

    Only for one that adopts orphans. What another user owns is left alone.
    """
    killed: set[int] = set()
    refused: set[int] = set()
    while True:
        # Children first, at once: in a chain of processes that fork and exit, each becomes a child
        # of ours, and is gone before all of /proc has been read.
        children = _children() - spared - refused
        for pid in (*children, *(descendants(spared) - children - refused)):
            (killed if _kill(pid) else refused).add(pid)
        for pid in children - refused:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if not _reap() or not _children() - spared - refused:
            return len(killed)


def end_below_children() -> None:
    """Kill all processes below the children of this one, which adopt orphans, until none is left.

    The children themselves are left alone, and so is what another user owns.
    """
    refused: set[int] = set()
    while left := descendants() - _children() - refused:
        refused |= {pid for pid in left if not _kill(pid)}


def _children() -> set[int]:
    """Return the children of this process; where the kernel has no list, from all of /proc."""
    lists = Path("/proc/self/task").glob("*/children")
    texts = [each.read_bytes() for each in lists]
    if not texts:
        return {pid for pid in descendants() if _parent(pid) == os.getpid()}
    return {int(pid) for text in texts for pid in text.split()}


def _parent(pid: int) -> int:
    stat = _state_and_parent(Path(f"/proc/{pid}/stat"))
    return stat[1] if stat else 0


def _kill(pid: int) -> bool:
    """Kill a process; tell whether we may. One that has ended already counts as killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap() -> bool:
    """Take leave of children that have ended; tell whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
