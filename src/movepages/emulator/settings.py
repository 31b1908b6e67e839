"""What root may set on the emulated machine: the size of a node's pools, the weight of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from movepages.abi.limits import ULONG_MAX
from movepages.emulator.attributes import Attribute
from movepages.emulator.sysfs import DEFAULT_WEIGHT, NODES, WEIGHTS, pool_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.pools import Hstate

_MAX_WEIGHT = 255


def settings_of(machine: EmulatedMachine) -> Iterator[tuple[str, Attribute]]:
    """Go through the attributes of a machine, by path."""
    for node in sorted(machine.topology.online):
        for size in machine.pools:
            name = pool_name(machine.page_size_bytes << size.order)
            place = f"/sys/{NODES}/node{node}/hugepages/{name}"
            pool = _Pool(machine, size, node)
            yield f"{place}/nr_hugepages", Attribute(pool.total, pool.resize)
            yield f"{place}/free_hugepages", Attribute(pool.free)
            yield f"{place}/surplus_hugepages", Attribute(pool.surplus)
    for node in sorted(machine.topology.possible | machine.topology.online):
        weight = _Weight(machine.weights, node)
        yield f"/sys/{WEIGHTS}/node{node}", Attribute(weight.get, weight.set)


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """The pool of a size and node, whose pages come back when those who had them are gone."""

    machine: EmulatedMachine
    size: Hstate
    node: int

    def total(self) -> int:
        self.machine.count_huge_pages()
        return int(self.size.total[self.node])

    def free(self) -> int:
        self.machine.count_huge_pages()
        return self.size.free(self.node)

    def surplus(self) -> int:
        self.machine.count_huge_pages()
        return int(self.size.surplus[self.node])

    def resize(self, line: str) -> None:
        """Set nr_hugepages; the kernel refuses what is no number (nr_hugepages_store).

        What has been touched since it was written comes of the pool as it is then.
        """
        huge_pages = _number(line, ULONG_MAX)
        if huge_pages is not None:
            self.machine.reclaim()
            self.size.resize(self.node, huge_pages)


@dataclass(frozen=True, slots=True, eq=False)
class _Weight:
    """The weight of a node for interleaving."""

    weights: dict[int, int]
    node: int

    def get(self) -> int:
        return self.weights.get(self.node, DEFAULT_WEIGHT)

    def set(self, line: str) -> None:
        """Set 1 to 255; 0, or nothing, is the default again (node_store in mm/mempolicy.c)."""
        weight = _number(line, _MAX_WEIGHT) if line else 0
        if weight is not None:
            self.weights[self.node] = weight or DEFAULT_WEIGHT


def _number(line: str, most: int) -> int | None:
    """Return a decimal number, None for what kstrtoul() and the like refuse."""
    digits = line.lstrip("0")
    if not line.isascii() or not line.isdecimal() or len(digits) > len(str(most)):
        return None
    number = int(digits or "0")
    return number if number <= most else None
