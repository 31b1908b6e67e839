"""move_pages(2) over NumPy arrays, and what its refusals mean on this machine.

The raw answer of the kernel says only an errno. Here the node, the process or the filter that is
behind it is found and named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Capability, Errno, MoveFlag
from movepages.errors import CallError, UnsupportedError, call_error
from movepages.linux import filters, syscalls
from movepages.linux.nodes import read_has_memory
from movepages.linux.reading import ROOT
from movepages.linux.status import read_status
from movepages.linux.syscalls import address_of
from movepages.values import CallResult

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


_MOVE_FLAGS = int(MoveFlag.MOVE | MoveFlag.MOVE_ALL)


def unwritten(count: int) -> NDArray[np.int32]:
    """Return a status array of which no element is written yet."""
    status = np.empty(count, dtype=np.int32)
    status.fill(UNWRITTEN)
    return status


def query_pages(
    pid: int, addresses: NDArray[np.uint64], status: NDArray[np.int32], root: Path = ROOT
) -> CallResult:
    """Ask for the node of each page. Arrays are contiguous and of equal length. Raises CallError.

    move_pages(2) without nodes. It faults nothing in and asks for no more than the right to read.
    """
    count = len(addresses)
    ret = syscalls.move_pages(pid, count, address_of(addresses), None, address_of(status), 0)
    result = CallResult(ret, status)
    if ret < 0:
        raise _refusal(result, pid, None, 0, root)
    return result


def move_pages(
    pid: int,
    addresses: NDArray[np.uint64],
    nodes: NDArray[np.int32],
    status: NDArray[np.int32],
    flags: int,
    root: Path = ROOT,
) -> CallResult:
    """Move each page to its node. Arrays are contiguous and of equal length. Raises CallError."""
    ret = syscalls.move_pages(
        pid, len(addresses), address_of(addresses), address_of(nodes), address_of(status), flags
    )
    result = CallResult(ret, status)
    if ret < 0:
        raise _refusal(result, pid, nodes, flags, root)
    return result


def moves_shared(root: Path = ROOT) -> bool:
    """Tell whether the caller may move pages that others map too: CAP_SYS_NICE."""
    return bool(read_status(0, root).cap_eff >> Capability.SYS_NICE & 1)


def _refusal(
    result: CallResult, pid: int, nodes: NDArray[np.int32] | None, flags: int, root: Path
) -> CallError:
    errno = -result.ret
    if errno in {Errno.EPERM, Errno.ENOSYS}:
        refused = filters.refusal("move_pages", root)
        if refused:
            refused.pid, refused.result = pid, result
            return refused
    node, detail = None, ""
    if errno == Errno.ENODEV and nodes is not None:
        node, detail = _missing_node(nodes, root)
    elif errno == Errno.EACCES and nodes is not None:
        node, detail = _forbidden_node(pid, nodes, root)
    elif errno == Errno.ESRCH:
        detail = f"there is no process {pid}; check the pid, it may have ended"
    elif errno == Errno.EINVAL and not flags & ~_MOVE_FLAGS:
        detail = (
            f"process {pid} has no memory of its own: it is a kernel thread, or a zombie that "
            "waits for its parent; name a process in user space"
        )
    elif errno == Errno.EPERM:
        detail = _missing_right(pid, flags, root)
    return call_error(
        result.ret,
        "move_pages",
        detail=detail,
        pid=pid,
        node=node,
        arguments={"nr_pages": len(result.status), "flags": int(flags)},
        result=result,
    )


def _missing_node(nodes: NDArray[np.int32], root: Path) -> tuple[int | None, str]:
    try:
        with_memory = read_has_memory(root)
    except (OSError, UnsupportedError):
        return None, ""  # the errno's own sentence has to do
    missing = [node for node in np.unique(nodes).tolist() if node not in with_memory]
    if not missing:
        return None, ""
    return missing[0], (
        f"node {missing[0]} does not exist, is offline or has no memory; "
        f"nodes with memory are {with_memory}"
    )


def _forbidden_node(pid: int, nodes: NDArray[np.int32], root: Path) -> tuple[int | None, str]:
    try:
        allowed = read_status(pid, root).mems_allowed
    except OSError:
        return None, ""  # gone meanwhile: the errno's own sentence has to do
    forbidden = [node for node in np.unique(nodes).tolist() if allowed and node not in allowed]
    if not forbidden:
        return None, ""
    return forbidden[0], (
        f"node {forbidden[0]} lies outside the cpuset of process {pid or 'self'}, which allows "
        f"{allowed}; choose one of these, or widen cpuset.mems of its cgroup"
    )


def _missing_right(pid: int, flags: int, root: Path) -> str:
    if flags & MoveFlag.MOVE_ALL and not moves_shared(root):
        return (
            "moving pages that others map too (MPOL_MF_MOVE_ALL) needs CAP_SYS_NICE; "
            "run as root, or leave shared pages alone"
        )
    return (
        f"process {pid} is not yours to look at: it is another user's, setuid or not dumpable; "
        "run as its owner or as root"
    )
