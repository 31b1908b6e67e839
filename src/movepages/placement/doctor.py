"""Can the pages of a process be moved, and if not, what stops it: found out by trying.

No version is compared and no right is added up: move_pages(2) is called with no pages, and with one
page that is to go to where it is. Only when the kernel has said no are its reasons looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import Errno, MoveFlag, status_name
from movepages.errors import (
    CallError,
    FilteredError,
    InvalidCallError,
    NoSuchCallError,
    NoSuchProcessError,
    NotPermittedError,
    UnsupportedError,
)
from movepages.nodeset import NodeSet
from movepages.placement.reasons import why_not_permitted
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from movepages.machine import Machine
    from movepages.values import Mapping, TaskInfo

NO_PAGES = np.empty(0, dtype=np.uint64)
_NOTHING_TO_DO = Errno.ENOENT
"""What move_pages(2) answered before Linux 2.6.28 when every page was where it should be."""


class Answer(StrEnum):
    """How a check came out: well, with something to know, or so that pages cannot be moved."""

    YES = "yes"
    NOTE = "note"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried: how it came out in a sentence, and what to do if not well."""

    name: str
    answer: Answer
    says: str
    remedy: str = ""


def yes(name: str, says: str) -> Check:
    """Return a check that came out well."""
    return Check(name, Answer.YES, says)


def note(name: str, says: str, remedy: str) -> Check:
    """Return a check that leaves something to know."""
    return Check(name, Answer.NOTE, says, remedy)


def no(name: str, says: str, remedy: str) -> Check:
    """Return a check of what stops pages from being moved."""
    return Check(name, Answer.NO, says, remedy)


def examine_process(machine: Machine, task: TaskInfo) -> tuple[Check, ...]:
    """Find out whether the caller can move pages of a process; what cannot be tried is left out.

    Nothing is changed: the one page that is moved goes to where it is. Raises NoSuchProcessError
    where it ends meanwhile.
    """
    call = check_call(machine)
    checks = [*check_nodes(machine), call]
    if call.answer is Answer.NO:
        return tuple(checks)
    rights = _rights(machine, task)
    checks += [rights, *_ptrace_scope(machine)]
    if rights.answer is Answer.NO:
        return tuple(checks)
    try:
        mappings = machine.mappings(task.pid)
        checks.append(check_move(machine, task, mappings))
    except NotPermittedError as error:
        reason, _, remedy = str(error).partition("; ")
        return *checks, no("rights", f"its memory map may not be read: {reason}", remedy)
    checks += [*_cpuset(machine, task), *_room(machine, task, mappings), *check_shared(machine)]
    return tuple(checks)


def check_nodes(machine: Machine) -> Iterator[Check]:
    """Tell whether there is more than one node for pages to be on."""
    try:
        with_memory = machine.topology().with_memory
    except UnsupportedError as error:
        yield no("nodes", "this kernel shows no nodes", str(error))
        return
    if len(with_memory) > 1:
        yield yes("nodes", f"{len(with_memory)} nodes have memory: {with_memory}")
        return
    yield no(
        "nodes",
        f"only node {with_memory} has memory, so there is nowhere to move pages to",
        "try nodes that are not there: movepages emulate --nodes 4 -- CMD",
    )


def check_call(machine: Machine) -> Check:
    """Call move_pages(2) without a page."""
    try:
        machine.query_pages(0, NO_PAGES)
    except (FilteredError, NoSuchCallError) as error:
        return refused_call(error)
    return yes("call", "the kernel answers move_pages(2)")


def refused_call(error: CallError) -> Check:
    """Return the check of a call that nobody here may make."""
    name = "filter" if isinstance(error, FilteredError) else "call"
    reason, _, remedy = str(error).removeprefix(f"{error.call}: ").partition("; ")
    return no(name, f"{error.call}(2) is not to be had: {reason}", remedy)


def check_move(machine: Machine, task: TaskInfo, mappings: Sequence[Mapping]) -> Check:
    """Move one page of a process to the node that it is on."""
    page = _page_to_try(machine, task, mappings)
    if not len(page):
        return note(
            "move",
            "it has no page in memory to try with",
            "ask again when it has touched some",
        )
    try:
        status = machine.query_pages(task.pid, page).status
        if status[0] >= 0:
            status = machine.move_pages(task.pid, page, status, MoveFlag.MOVE).status
    except (FilteredError, NoSuchCallError) as error:
        return refused_call(error)
    except NoSuchProcessError:
        raise
    except CallError as error:
        if error.errno == _NOTHING_TO_DO:
            return yes("move", "a page of it is where it would be moved to")
        return note("move", f"a page was not moved to where it is: {error}", "try another time")
    if status[0] < 0:
        return note(
            "move",
            f"the page that was tried answers {status_name(int(status[0]))}",
            f"others may move all the same; see movepages explain {status_name(int(status[0]))}",
        )
    return yes("move", "a page of it was moved to where it is")


def _page_to_try(machine: Machine, task: TaskInfo, mappings: Sequence[Mapping]) -> np.ndarray:
    """Return the address of one page, of the smallest private mapping that has some; or none."""
    resident = [mapping for mapping in mappings if mapping.resident_bytes]
    by_worth = sorted(
        resident, key=lambda m: (m.shared, m.kind not in {"heap", "anon", "stack"}, m.size_bytes)
    )
    for mapping in by_worth[:4]:
        runs = machine.present(task.pid, [mapping.span])
        if len(runs):
            return runs.start[:1]
    return NO_PAGES


def _rights(machine: Machine, task: TaskInfo) -> Check:
    """Call move_pages(2) about the process, without a page. Raises InvalidCallError for none."""
    try:
        machine.query_pages(task.pid, NO_PAGES)
    except NotPermittedError:
        reason, remedy = why_not_permitted(machine.standing(task.pid))
        return no("rights", reason, remedy)
    except InvalidCallError:
        return no("rights", "it has no memory of its own", "name a process in user space")
    standing = machine.standing(task.pid)
    if standing.same_user and standing.dumpable is not False and standing.covered:
        return yes("rights", f"you may look at it: it runs as you (uid {task.uid})")
    return yes("rights", f"you may look at it, though it runs as uid {task.uid} (CAP_SYS_PTRACE)")


def _ptrace_scope(machine: Machine) -> Iterator[Check]:
    """Say of Yama that it is not to blame: yama_ptrace_access_check asks about attaching only."""
    scope = machine.settings().ptrace_scope
    if scope:
        yield yes(
            "ptrace scope",
            f"Yama's ptrace_scope {scope} keeps debuggers from attaching, not pages from moving",
        )


def _cpuset(machine: Machine, task: TaskInfo) -> Iterator[Check]:
    try:
        with_memory = machine.topology().with_memory
    except UnsupportedError:
        return
    allowed = task.mems_allowed & with_memory
    widen = f"widen cpuset.mems of its cgroup{f' {task.cgroup}' if task.cgroup else ''}"
    if with_memory <= allowed:
        yield yes("cpuset", "its cpuset allows every node with memory")
    elif len(allowed) > 1:
        others = with_memory - allowed
        yield note("cpuset", f"its cpuset allows nodes {allowed}, not {others}", widen)
    else:
        yield no("cpuset", f"its cpuset allows node {allowed} only", widen)


def _room(machine: Machine, task: TaskInfo, mappings: Sequence[Mapping]) -> Iterator[Check]:
    """Tell whether a node has room for all that is elsewhere."""
    here: dict[int, int] = {}
    for mapping in mappings:
        for node, size_bytes in mapping.bytes_by_node.items():
            here[node] = here.get(node, 0) + size_bytes
    free = machine.free_bytes()
    there = {node: free[node] for node in sorted(task.mems_allowed & NodeSet(free))}
    if not here or len(there) < 2:
        return
    total = sum(here.values())
    roomy = [node for node in there if there[node] >= total - here.get(node, 0)]
    listed = ", ".join(f"node {node} {format_size(size)}" for node, size in there.items())
    free_now = f"free memory: {listed}"
    if max(there.values()) < machine.page_size_bytes:
        yield no("memory", f"no node has a page free ({free_now})", "free memory on a node")
    elif roomy:
        yield yes(
            "memory",
            f"node{'s' if len(roomy) > 1 else ''} {NodeSet(roomy)} would hold all of its "
            f"{format_size(total)} ({free_now})",
        )
    else:
        yield note(
            "memory",
            f"no node would hold all of its {format_size(total)} ({free_now})",
            "move a part of it (--max-pages, --heap), spread it, or let it go on to the next node "
            "(--spill)",
        )


def check_shared(machine: Machine) -> Iterator[Check]:
    """Call move_pages(2) with MPOL_MF_MOVE_ALL and without a page; and tell what fights a move."""
    if _may_move_shared(machine):
        yield yes("shared", "pages that other processes map, too, can be moved (--shared)")
    else:
        yield note(
            "shared",
            "pages that other processes map, too, stay where they are",
            "run as root (CAP_SYS_NICE) to move them with --shared",
        )
    conditions = machine.conditions()
    if conditions.numa_balancing:
        yield note(
            "numa balancing",
            "NUMA balancing is on and may move pages back to the threads that use them",
            "switch it off: sysctl kernel.numa_balancing=0",
        )
    if conditions.demotion:
        yield note(
            "demotion",
            "demotion is on: reclaim may move pages on to a slower tier of memory",
            "write false to /sys/kernel/mm/numa/demotion_enabled to keep them",
        )


def _may_move_shared(machine: Machine) -> bool:
    try:
        machine.move_pages(0, NO_PAGES, np.empty(0, dtype=np.int32), MoveFlag.MOVE_ALL)
    except CallError as error:
        if error.errno != _NOTHING_TO_DO:
            return False
    return True
