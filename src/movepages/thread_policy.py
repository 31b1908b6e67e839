"""The memory policy of the calling thread, for the length of a block."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from movepages.abi import Errno, Mode
from movepages.errors import (
    ArgumentError,
    InvalidCallError,
    MovePagesError,
    NoSuchNodeError,
    OutsideCpusetError,
    UnsupportedError,
)
from movepages.linux.machine import LinuxMachine
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from movepages.machine import Machine
    from movepages.values import TaskInfo

    Nodes = int | Iterable[int]

_NEWER = {
    Mode.PREFERRED_MANY: "several preferred nodes, as Linux 5.15 and later do",
    Mode.WEIGHTED_INTERLEAVE: "weighted interleave, as Linux 6.9 and later do",
}


@contextmanager
def mempolicy(
    *,
    bind: Nodes | None = None,
    preferred: Nodes | None = None,
    interleave: Nodes | None = None,
    weighted: Nodes | None = None,
    local: bool = False,
    machine: Machine | None = None,
) -> Iterator[None]:
    """Have the pages that this thread touches for the first time in a block come to nodes.

    The first touch decides, so it belongs in the block::

        with movepages.mempolicy(bind={1}):
            table = np.empty(1 << 30, np.uint8)
            table[:] = 0

    Give one of: `bind`, only these nodes, and out of memory where they are full; `preferred`, these
    as long as they have room (several since Linux 5.15); `interleave`, these by turns; `weighted`,
    by turns with the kernel's weights (since Linux 6.9); `local`, the node of the CPU that touches.
    Nodes are one number or several.

    The policy is the thread's alone: others that run already keep theirs, those and the processes
    that are started in the block inherit it for good. Memory with a policy of its own, as
    `movepages.empty`, `place` and `interleave` give it, follows that. At the end, and on an
    exception, the policy that the thread had is set again, with its mode flags; blocks nest. In
    asyncio a block without `await` in it is safe, for tasks share a thread.

    Raises ArgumentError, NodeSetError; NoSuchNodeError and OutsideCpusetError for a node that the
    kernel would leave out silently; UnsupportedError, CallError. Implements set_mempolicy(2).
    """
    mode, wanted = _asked(bind, preferred, interleave, weighted, local)
    machine = machine or LinuxMachine()
    nodes = usable_nodes(machine, machine.task(0), wanted) if wanted else wanted
    before, thread = machine.get_policy(), threading.get_ident()
    _set(machine, mode, nodes)
    try:
        yield
    finally:
        if threading.get_ident() != thread:
            raise MovePagesError(
                "another thread has entered this block of mempolicy, and has its policy still; "
                "enter and leave it in one thread"
            )
        machine.set_policy(before.mode, before.nodes)


def usable_nodes(machine: Machine, task: TaskInfo, nodes: Iterable[int]) -> NodeSet:
    """Return nodes that pages of a process can come to. Raises NoSuchNodeError and the like."""
    wanted = NodeSet(nodes)
    outside = wanted - task.mems_allowed
    if not outside:
        return wanted
    with_memory = machine.topology().with_memory
    if missing := outside - with_memory:
        raise NoSuchNodeError(
            Errno.ENODEV,
            f"node {min(missing)} does not exist, is offline or has no memory; "
            f"nodes with memory are {with_memory}",
            call="set_mempolicy",
            node=min(missing),
        )
    raise OutsideCpusetError(
        Errno.EACCES,
        f"node {min(outside)} lies outside the cpuset of this process, which allows "
        f"{task.mems_allowed}; choose one of these, or widen cpuset.mems of its cgroup",
        call="set_mempolicy",
        node=min(outside),
    )


def one_or_more(nodes: Nodes) -> NodeSet:
    """Return one node, or several, as a set. Raises ArgumentError, NodeSetError."""
    if isinstance(nodes, str):
        raise ArgumentError(f"nodes are numbers, not {nodes!r}; give 1 or {{0, 1}}")
    try:
        wanted = NodeSet(nodes if hasattr(nodes, "__iter__") else [nodes])
    except TypeError:
        raise ArgumentError(f"nodes are numbers, not {nodes!r}; give 1 or {{0, 1}}") from None
    if not wanted:
        raise ArgumentError("there is no node given; give at least one")
    return wanted


def _asked(
    bind: Nodes | None,
    preferred: Nodes | None,
    interleave: Nodes | None,
    weighted: Nodes | None,
    local: bool,  # noqa: FBT001 - as mempolicy was given it
) -> tuple[Mode, NodeSet]:
    """Return the mode and the nodes that are asked for. Raises ArgumentError."""
    by_mode = {
        Mode.BIND: bind,
        Mode.PREFERRED: preferred,
        Mode.INTERLEAVE: interleave,
        Mode.WEIGHTED_INTERLEAVE: weighted,
    }
    given = [(mode, one_or_more(nodes)) for mode, nodes in by_mode.items() if nodes is not None]
    if local:
        given.append((Mode.LOCAL, NodeSet()))
    if len(given) != 1:
        raise ArgumentError("give exactly one of bind, preferred, interleave, weighted and local")
    mode, wanted = given[0]
    return (Mode.PREFERRED_MANY if mode == Mode.PREFERRED and len(wanted) > 1 else mode), wanted


def _set(machine: Machine, mode: Mode, nodes: NodeSet) -> None:
    try:
        machine.set_policy(mode, nodes)
    except InvalidCallError:
        if mode not in _NEWER:
            raise
        raise UnsupportedError(
            f"this kernel does not know {_NEWER[mode]}; use another policy"
        ) from None
