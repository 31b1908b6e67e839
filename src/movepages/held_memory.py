"""Memory that the caller holds: where an array is, and how to have it elsewhere.

Pages are the least that can be on a node. So what is meant is every page that has a byte of the
array, as for ranges on the command line: only then is all of the array where it was asked to be.
NumPy's large arrays start 16 bytes behind the beginning of a page, so their first and last page
hold some bytes of others, which come along. An array that does not fill a single page shares every
page that it is on with strangers, and is not placed: `empty` gives memory of its own.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from movepages.abi import Mode
from movepages.buffers import memory_of
from movepages.errors import ArgumentError, InvalidCallError
from movepages.linux.machine import LinuxMachine
from movepages.placement import execute, make_plan
from movepages.placement.planning import by_page
from movepages.placement.spread import weighing
from movepages.thread_policy import one_or_more, usable_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import DTypeLike, NDArray

    from movepages.buffers import Buffer
    from movepages.machine import Machine
    from movepages.nodeset import NodeSet
    from movepages.placement import Options
    from movepages.values import Ledger, Placement


def locate(array: Any, *, machine: Machine | None = None) -> Placement:
    """Return on which node each page of an array is, as runs of pages; nothing is touched.

    All pages that have a byte of it, so at its ends they may hold other data too, and a huge page
    counts whole. Pages that were never touched, or are swapped out, are on no node and not in it.

    `array` is a NumPy array, a torch tensor on the CPU, or anything with the buffer protocol: mmap,
    memoryview, SharedMemory, array.array, bytes. Raises ArgumentError for what is empty, has gaps
    (a strided view) or does not say where it is; CallError.
    """
    machine = machine or LinuxMachine()
    memory = memory_of(array)
    return machine.locate(0, [memory.pages(machine.page_size_bytes)])


def place(
    array: Any, node: int, *, options: Options | None = None, machine: Machine | None = None
) -> Ledger:
    """Have an array on a node: its pages are moved, and those not touched yet will come there.

    All pages that have a byte of it, so what shares its first and last page comes along. The ledger
    says of each page that was there what became of it: `ledger.complete`, `ledger.failed()`. For
    later touches the range gets the policy `preferred`, which falls back to other nodes when the
    node is full, and which NUMA balancing leaves alone; it lasts as long as the mapping.

    A read-only array is moved like any other: its bytes do not change. `array` is as for `locate`,
    `options` says how to move (rate, retries, pages shared with others). Raises ArgumentError,
    also for an array that does not fill a single page; NoSuchNodeError, OutsideCpusetError,
    CallError. Implements mbind(2) and move_pages(2).
    """
    machine = machine or LinuxMachine()
    memory = _of_whole_pages(array, machine)
    task = machine.task(0)
    nodes = usable_nodes(machine, task, _just_one(node))
    _set_policy(machine, memory, Mode.PREFERRED, nodes)
    placement = machine.locate(0, [memory.pages(machine.page_size_bytes)])
    plan = make_plan(task.id, placement, min(nodes), reasons=("asked for",))
    return execute(plan, machine, options)


def interleave(
    array: Any,
    nodes: Iterable[int],
    weights: Mapping[int, int] | None = None,
    *,
    options: Options | None = None,
    machine: Machine | None = None,
) -> Ledger:
    """Have the pages of an array on nodes by turns: moved, and where they will be touched later.

    The address of a page says whose turn it is, in rising order of node, as in the kernel's policy
    `interleave` for private memory. So a scan meets all nodes alike, and a second call moves only
    what is not in its place. With `weights`, a whole number from 1 on for each node, one gets so
    many pages in a row; pages that are touched later come by even turns then, for the kernel has
    weights only for the whole machine.

    Otherwise as `place`. Implements mbind(2) and move_pages(2).
    """
    machine = machine or LinuxMachine()
    memory = _of_whole_pages(array, machine)
    task = machine.task(0)
    wanted = usable_nodes(machine, task, one_or_more(nodes))
    cycle = weighing(wanted, weights)
    _set_policy(machine, memory, Mode.INTERLEAVE, wanted)
    pages = by_page(machine.locate(0, [memory.pages(machine.page_size_bytes)]))
    plan = make_plan(task.id, pages, _turns(pages, cycle), reasons=("its turn",))
    return execute(plan, machine, options)


def empty(
    shape: int | tuple[int, ...],
    dtype: DTypeLike = float,
    *,
    node: int | None = None,
    interleave: Iterable[int] | None = None,
    machine: Machine | None = None,
) -> NDArray[Any]:
    """Return a new array in memory of its own that will come to a node when it is touched.

    Give `node`, or the nodes to `interleave` over. The memory is private, starts at a page, shares
    none with anything, reads as zeros, and is given back with the last view of the array. A node
    that is full is not insisted on: others take the rest, and `locate` tells.

    Raises ArgumentError for an array without elements, or of objects; NoSuchNodeError,
    OutsideCpusetError, CallError, MemoryError. Implements mmap(2) and mbind(2).
    """
    machine = machine or LinuxMachine()
    if (node is None) == (interleave is None):
        raise ArgumentError("give either a node, or the nodes to interleave over")
    if interleave is None:
        mode, wanted = Mode.PREFERRED, _just_one(node)
    else:
        mode, wanted = Mode.INTERLEAVE, one_or_more(interleave)
    nodes = usable_nodes(machine, machine.task(0), wanted)
    array = _mapped(shape, np.dtype(dtype))
    _set_policy(machine, memory_of(array), mode, nodes)
    return array


def _mapped(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array over a new private mapping. Raises ArgumentError, MemoryError."""
    if dtype.hasobject:
        raise ArgumentError("an array of objects holds references only; give a dtype of numbers")
    try:
        lengths = np.broadcast_to(np.uint8(0), shape).shape  # takes no memory, and checks the shape
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"{shape!r} is no shape of an array: {error}") from None
    count = 1
    for length in lengths:
        count *= length
    if not count * dtype.itemsize:
        raise ArgumentError(f"an array of shape {lengths} has no memory that could be anywhere")
    try:
        memory = mmap.mmap(-1, count * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{count * dtype.itemsize:,} bytes cannot be mapped: {error}") from None
    return np.frombuffer(memory, dtype, count).reshape(lengths)


def _of_whole_pages(array: Any, machine: Machine) -> Buffer:
    """Return where an array is. Raises ArgumentError where no page is all its own."""
    memory = memory_of(array)
    if not memory.fills_a_page(machine.page_size_bytes):
        raise ArgumentError(
            f"the array of {len(memory):,} bytes fills no page of {machine.page_size_bytes:,} "
            "bytes, and shares all that it is on with other data; movepages.empty() gives memory "
            "of its own"
        )
    return memory


def _just_one(node: Any) -> NodeSet:
    nodes = one_or_more(node)
    if len(nodes) > 1:
        raise ArgumentError(f"one node is wanted, not {nodes}; interleave() takes several")
    return nodes


def _set_policy(machine: Machine, memory: Buffer, mode: Mode, nodes: NodeSet) -> None:
    """Set the policy for the pages of some memory that are touched later."""
    start, end = memory.pages(machine.page_size_bytes)
    try:
        machine.mbind(start, end - start, mode, nodes, 0)
    except InvalidCallError:  # a mapping of hugetlb cannot be divided within a huge page
        huge = max(
            (m.page_size_bytes for m in machine.mappings(0) if m.start < end and m.end > start),
            default=0,
        )
        if huge <= machine.page_size_bytes:
            raise
        start, end = memory.pages(huge)
        machine.mbind(start, end - start, mode, nodes, 0)


def _turns(pages: Placement, cycle: Mapping[int, int]) -> NDArray[np.int32]:
    """Return whose turn each page is, int32[n] (weighted_interleave_nid in mm/mempolicy.c)."""
    nodes = np.array(list(cycle), dtype=np.int32)
    ends = np.cumsum(np.array(list(cycle.values()), dtype=np.uint64))
    turn = pages.start // pages.page_size_bytes.view(np.uint64) % ends[-1]
    whose: NDArray[np.int32] = nodes[np.searchsorted(ends, turn, side="right")]
    return whose
