"""A tour of the kernel in Python: a machine in memory, and what four kernels say of its pages.

python examples/kernel_tour.py     on any machine: no root, no NUMA, not even Linux
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from movepages.abi import PAGE_STATUSES, UNWRITTEN, MoveFlag, status_name
from movepages.kernel import LINUX_6_12, SimulatedMachine
from movepages.kernel.inject import Pin
from movepages.kernel.semantics import ALL_SEMANTICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from movepages.kernel.process import Task

TOPOLOGY = "4 x 64M"
TARGET, NOWHERE = 3, 9
SHARED = "mapped by two processes"
KERNELS = {kernel.name.removeprefix("the patch's "): kernel for kernel in ALL_SEMANTICS}


def main() -> None:
    """Show it all."""
    look_around()
    ask_for_every_kind()
    show_returns("three pages to node 1, the first pinned by I/O", [1, 1, 1], pinned_pages=1)
    show_returns(f"three pages, the last to node {NOWHERE}: there is none", [1, 1, NOWHERE])


def look_around() -> None:
    """Fault pages in, ask where they are, move single ones, and look at their contents."""
    machine = SimulatedMachine(TOPOLOGY, semantics=LINUX_6_12)
    process = machine.spawn(cpu=0)
    pages = process.addresses(process.mmap(32), 32).tolist()
    process.poke(pages[0], range(100, 116))
    process.thread(cpu=2).poke(pages[16], range(116, 132))
    print(f"{LINUX_6_12.name} in memory: {TOPOLOGY}. A digit is a page: the node it is on.\n")
    print(f"  {'written on CPU 0 and CPU 2':32}{where(process, pages)}")
    for label, chosen, node in (
        ("every fourth page to node 3", pages[::4], 3),
        ("the first eight to node 1", pages[:8], 1),
    ):
        ret, _ = process.move_pages(0, chosen, node, MoveFlag.MOVE)
        print(f"  {label:32}{where(process, pages)}  returned {ret}")
    intact = process.peek(pages[0], 32).tolist() == list(range(100, 132))
    machine.check()
    print(f"\n  contents {'intact' if intact else 'LOST'}; all counts agree with a recount\n")


def where(process: Task, pages: Sequence[int]) -> str:
    """Query pages: a digit for the node of each, `.` for a page without."""
    _, status = process.move_pages(0, pages, None, 0)
    return "".join(str(node) if node >= 0 else "." for node in status)


def ask_for_every_kind() -> None:
    """Ask each kernel for pages of every kind in one call, and write what it says of each."""
    print(f"One call for pages of every kind, to node {TARGET}; the status of each:\n")
    print(f"  {'':28}{columns(KERNELS)}")
    answers = []
    for semantics in KERNELS.values():
        machine = SimulatedMachine(TOPOLOGY, semantics=semantics)
        process = machine.spawn()
        pages = pages_of_every_kind(process)
        _, status = process.move_pages(0, list(pages.values()), TARGET, MoveFlag.MOVE)
        _, again = process.move_pages(0, [pages[SHARED]], TARGET, MoveFlag.MOVE_ALL)
        machine.check()
        answers.append([*status.tolist(), *again.tolist()])
    for kind, *said in zip([*pages, "the same, with MOVE_ALL"], *answers, strict=True):
        print(f"  {kind:28}{columns(map(status_name, said))}")
    print()
    for code in sorted({code for said in answers for code in said if code < 0}, reverse=True):
        print(f"  {status_name(code):28}{PAGE_STATUSES[code].meaning}")


def pages_of_every_kind(process: Task) -> dict[str, int]:
    """Let a process make a page of each kind, on node 0 but for one; return their addresses."""
    shared = process.mmap(1, shared=True)
    process.write(shared)
    process.fork().read(shared)
    touched, there, untouched, hole, zero, mlocked = (process.mmap(1) for _ in range(6))
    process.write(touched)
    process.thread(cpu=TARGET).write(there)
    process.munmap(hole, 1)
    process.read(zero)
    process.mlock(mlocked, 1)
    kinds = {"touched": touched, "on that node already": there, "never touched": untouched}
    kinds |= {"an address with no mapping": hole, "only read: the zero page": zero}
    return kinds | {"mlocked": mlocked, SHARED: shared}


def show_returns(label: str, nodes: Sequence[int], *, pinned_pages: int = 0) -> None:
    """Ask each kernel for pages on node 0, and write its return value beside the statuses."""
    print(f"\nOne call for {label}:\n")
    print(f"  {'':15}{columns(('returned', 'statuses', '', '', 'now on'))}")
    for name, semantics in KERNELS.items():
        machine = SimulatedMachine(TOPOLOGY, semantics=semantics)
        process = machine.spawn()
        pages = process.addresses(process.mmap(len(nodes)), len(nodes)).tolist()
        process.write(pages[0], len(nodes))
        for page in pages[:pinned_pages]:
            machine.inject(Pin(process, page))
        ret, status = process.move_pages(0, pages, nodes, MoveFlag.MOVE)
        machine.check()
        said = ["not written" if code == UNWRITTEN else status_name(code) for code in status]
        result = str(ret) if ret >= 0 else status_name(ret)
        print(f"  {name:15}{columns((result, *said, where(process, pages)))}")


def columns(cells: Iterable[str]) -> str:
    """Put cells into columns."""
    return "".join(f"{cell:13}" for cell in cells).rstrip()


if __name__ == "__main__":
    main()
