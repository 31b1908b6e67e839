"""The public Python interface: the calls, a process, and memory that you hold.

All are bound to the machine this runs on.

Arrays in, arrays out. Addresses may be any sequence of integers or buffer of unsigned integers;
they become uint64[n]. Nodes are int32[n], or one node for all pages. Statuses are int32[n].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi import UNWRITTEN, MoveFlag
from movepages.errors import ArgumentError, no_such_process
from movepages.held_memory import empty, interleave, locate, place
from movepages.linux import page_calls
from movepages.linux.machine import LinuxMachine
from movepages.linux.reading import ROOT, start_ticks
from movepages.thread_policy import mempolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from movepages.machine import Machine
    from movepages.topology import Topology
    from movepages.values import CallResult, Mapping, Placement

__all__ = [
    "MOVE",
    "MOVE_ALL",
    "Process",
    "empty",
    "interleave",
    "locate",
    "mempolicy",
    "migrate_pages",
    "move_pages",
    "place",
    "query_pages",
    "read_topology",
]

MOVE = MoveFlag.MOVE
MOVE_ALL = MoveFlag.MOVE_ALL

_ADDRESS = np.dtype(np.uint64)
_NODE = np.dtype(np.int32)


def move_pages(
    pid: int,
    addresses: ArrayLike,
    nodes: ArrayLike,
    flags: int = MOVE,
    *,
    status: NDArray[np.int32] | None = None,
) -> CallResult:
    """Move pages of a process to nodes, and say what became of each. Implements move_pages(2).

    Args:
        pid: the process, or 0 for the caller.
        addresses: any address inside each page, in bytes; becomes uint64[n].
        nodes: the node for each page, int32[n], or one node for all.
        flags: MOVE for pages that only this process maps, MOVE_ALL for shared ones too.
        status: int32[n] to write into; a new array by default.

    Returns:
        The return value and the statuses: a node, a negative errno, or `abi.UNWRITTEN` where the
        kernel wrote nothing. A positive return does not raise: some pages did not move.

    Raises:
        CallError: the call failed; `.result` has the statuses, for some pages may have moved.
        ArgumentError: arrays of the wrong kind or length.
    """
    where = _addresses(addresses)
    to = _nodes(nodes, len(where))
    return page_calls.move_pages(pid, where, to, _status(status, len(where)), int(flags))


def query_pages(
    pid: int, addresses: ArrayLike, *, status: NDArray[np.int32] | None = None
) -> CallResult:
    """Ask on which node each page of a process is. Implements move_pages(2) without nodes.

    Arguments, return value and errors are those of `move_pages`. Nothing is moved or faulted in.
    """
    where = _addresses(addresses)
    return page_calls.query_pages(pid, where, _status(status, len(where)))


def migrate_pages(pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int]) -> int:
    """Move all pages of a process from some nodes to others. Implements migrate_pages(2).

    The order of nodes is kept: the n-th of `from_nodes` goes to the n-th of `to_nodes`. Returns the
    number of folios that could not be moved. Raises CallError.
    """
    return LinuxMachine().migrate_pages(pid, from_nodes, to_nodes)


def read_topology() -> Topology:
    """Return the machine's nodes: CPUs, memory and free memory in bytes, distances, tiers.

    Read from /sys/devices/system/node. Raises UnsupportedError where the kernel has no NUMA.
    """
    return LinuxMachine().topology()


class Process:
    """A process, by its pid and start time: a pid that is used again is refused, not confused.

    pid 0 is the caller. Raises NoSuchProcessError.
    """

    def __init__(self, pid: int = 0, machine: Machine | None = None) -> None:
        """Remember who has that pid now."""
        self.pid = pid
        self._machine = machine or LinuxMachine()
        self._started = start_ticks(pid, ROOT) if machine is None else None

    def mappings(self) -> Sequence[Mapping]:
        """Return its mappings in rising order, with policy, and pages by node (numa_maps(5))."""
        self._require_same()
        return self._machine.mappings(self.pid)

    def locate(self, range: tuple[int, int] | None = None) -> Placement:  # noqa: A002 - as in the field
        """Return on which node each present page is, as runs of pages.

        `range` is (start, end) in bytes; None means all mappings. Raises CallError.
        """
        self._require_same()
        return self._machine.locate(self.pid, None if range is None else [range])

    def __repr__(self) -> str:
        """Write it as an expression."""
        return f"Process({self.pid})"

    def _require_same(self) -> None:
        if self._started is not None and start_ticks(self.pid, ROOT) != self._started:
            raise no_such_process(self.pid, "look at process")


def _addresses(addresses: ArrayLike) -> NDArray[np.uint64]:
    """Return addresses as contiguous uint64[n]. Raises ArgumentError."""
    array = addresses if isinstance(addresses, np.ndarray) else _sequence(addresses)
    if array.dtype is not _ADDRESS:
        if array.dtype.kind != "u":
            raise ArgumentError(
                f"addresses must be unsigned integers, not {array.dtype}; "
                "use an array of dtype uint64"
            )
        array = array.astype(_ADDRESS)
    if array.ndim != 1:
        raise ArgumentError(f"addresses must have one dimension, not {array.ndim}")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _sequence(addresses: Any) -> NDArray[Any]:
    """Turn a buffer into an array of its own type, and a sequence of integers into uint64."""
    if isinstance(addresses, (str, bytes, np.generic)) or not np.iterable(addresses):
        addresses = [addresses]
    try:
        return np.asarray(memoryview(addresses))
    except TypeError:
        values = list(addresses)  # not a buffer: a sequence, or something that holds no addresses
    for value in values:
        if not isinstance(value, (int, np.unsignedinteger)):
            raise ArgumentError(
                f"addresses must be integers of Python's or unsigned, not {type(value).__name__}"
            )
        if not 0 <= int(value) < 1 << 64:
            raise ArgumentError(f"address {int(value):#x} is not between 0 and 2**64 - 1")
    return np.array(values, dtype=_ADDRESS)


def _nodes(nodes: ArrayLike, count: int) -> NDArray[np.int32]:
    """Return nodes as contiguous int32[count]. Raises ArgumentError."""
    try:
        array = np.asarray(nodes)
    except ValueError:  # NumPy's way to say that rows have different lengths
        raise ArgumentError("nodes must be one node, or a sequence of them") from None
    if array.dtype is _NODE and array.shape == (count,):
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if array.ndim == 0:
        array = np.full(count, array)
    if array.shape != (count,):
        raise ArgumentError(f"there are {count} addresses but {array.size} nodes")
    if count and array.dtype.kind not in "iu":
        raise ArgumentError(f"nodes must be integers, not {array.dtype}")
    if count and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ArgumentError("nodes must fit in 32 bits")
    return array.astype(_NODE)


def _status(status: NDArray[np.int32] | None, count: int) -> NDArray[np.int32]:
    """Return the array to write statuses into, filled as unwritten. Raises ArgumentError."""
    if status is None:
        return page_calls.unwritten(count)
    if not isinstance(status, np.ndarray) or status.dtype != _NODE:
        raise ArgumentError("status must be a NumPy array of dtype int32")
    if status.shape != (count,):
        raise ArgumentError(f"status has {status.size} elements for {count} addresses")
    if not status.flags.writeable or not status.flags.c_contiguous:
        raise ArgumentError("status must be writable and contiguous")
    status.fill(UNWRITTEN)
    return status
