"""What will fight a plan: asked before it is carried out, so that nobody is surprised after."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np

from movepages.errors import NoSuchProcessError
from movepages.nodeset import NodeSet
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping as MappingOf, Sequence, Set

    from movepages.machine import Machine
    from movepages.placement.options import Options
    from movepages.values import Mapping, Plan

_NO_POLICY = ("default", "local")


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that will fight a plan, or undo it. One that `forbids` is to be overruled only."""

    name: str
    says: str
    remedy: str
    forbids: bool = False

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"{self.says}; {self.remedy}"


def concerns(machine: Machine, plans: Sequence[Plan], options: Options) -> list[Concern]:
    """Return what will fight some plans that are carried out one after the other.

    Of a process that has ended nothing is said. Raises CallError where one may not be looked at.
    """
    looked = [(plan, _mappings(machine, plan)) for plan in plans if len(plan)]
    found = machine_concerns(machine, _wanted(looked), options)
    for plan, mappings in looked:
        with suppress(NoSuchProcessError):
            found += _of_process(machine, plan, mappings, options)
    return found


def machine_concerns(
    machine: Machine, wanted: MappingOf[int, int], options: Options
) -> list[Concern]:
    """Return what of the machine will fight so many bytes coming to each of some nodes."""
    return [*_of_machine(machine, wanted.keys()), *_room(machine, wanted, options)]


def _mappings(machine: Machine, plan: Plan) -> list[Mapping]:
    """Return the mappings that have pages of a plan; none if its process has ended."""
    with suppress(NoSuchProcessError):
        return _touched(plan, machine.mappings(plan.task.pid))
    return []


def _wanted(looked: Sequence[tuple[Plan, Sequence[Mapping]]]) -> Counter[int]:
    """Return the bytes to come to each node, those that several processes share only once.

    Shared mappings of the same place in the same object are taken for the same pages.
    """
    wanted: Counter[int] = Counter()
    shared: dict[tuple[str, int, int], dict[int, Counter[int]]] = {}
    for plan, mappings in looked:
        own = Counter(plan.bytes_by_target)
        for mapping in filter(lambda each: each.shared, mappings):
            coming = _coming(plan, mapping)
            own -= coming
            place = (mapping.device, mapping.inode, mapping.offset)
            shared.setdefault(place, {}).setdefault(plan.task.pid, Counter()).update(coming)
        wanted += own
    for by_process in shared.values():
        wanted += reduce(or_, by_process.values())  # of each node the most that one brings
    return wanted


def _coming(plan: Plan, mapping: Mapping) -> Counter[int]:
    """Return the bytes of a mapping that are to come to each node."""
    inside = (plan.start >= mapping.start) & (plan.start < mapping.end)
    size_bytes = plan.pages[inside] * plan.page_size_bytes[inside]
    target = plan.to_node[inside]
    return Counter({node: int(size_bytes[target == node].sum()) for node in set(target.tolist())})


def _of_process(
    machine: Machine, plan: Plan, mappings: Sequence[Mapping], options: Options
) -> list[Concern]:
    return [
        *_cpuset(machine, plan),
        *_policies(plan, mappings),
        *_shared(plan, mappings, options),
    ]


def _of_machine(machine: Machine, targets: Set[int]) -> Iterator[Concern]:
    conditions = machine.conditions()
    if conditions.numa_balancing:
        yield Concern(
            "numa balancing",
            "NUMA balancing is on and may move pages back to the threads that use them",
            "switch it off (sysctl kernel.numa_balancing=0), or check with --verify",
        )
    if conditions.demotion and _slower_than_some(machine, targets):
        yield Concern(
            "demotion",
            "demotion is on: reclaim may move pages on to a slower tier of memory",
            "write false to /sys/kernel/mm/numa/demotion_enabled to keep them",
        )


def _slower_than_some(machine: Machine, targets: Set[int]) -> bool:
    """Tell whether the kernel can demote pages from one of some nodes."""
    tiers = machine.topology().tiers
    return any(not targets.isdisjoint(tier.nodes) for tier in tiers[:-1])


def _room(machine: Machine, wanted: MappingOf[int, int], options: Options) -> Iterator[Concern]:
    free = machine.free_bytes() if wanted else {}
    for node, size_bytes in sorted(wanted.items()):
        if size_bytes > (there := free.get(node, 0)):
            yield Concern(
                "free memory",
                f"node {node} has {format_size(there)} of free memory, and "
                f"{format_size(size_bytes)} are to come there",
                "choose fewer pages or another node, let pages go on to the next node (--spill), "
                "or try all the same (--force)",
                forbids=not options.spill,
            )


def _cpuset(machine: Machine, plan: Plan) -> Iterator[Concern]:
    allowed = machine.task(plan.task.pid).mems_allowed
    outside = NodeSet(plan.bytes_by_target) - allowed
    if outside:
        yield Concern(
            "cpuset",
            f"the cpuset of process {plan.task.pid} allows nodes {allowed}, not {outside}",
            "choose among those, or widen cpuset.mems of its cgroup",
        )


def _policies(plan: Plan, mappings: Sequence[Mapping]) -> Iterator[Concern]:
    targets = NodeSet(plan.bytes_by_target)
    pulling = sorted(
        {mapping.policy for mapping in mappings if _elsewhere(mapping.policy, targets)}
    )
    if pulling:
        yield Concern(
            "policy",
            f"process {plan.task.pid} has memory under the policy {', '.join(pulling)}, by which "
            "pages that it touches later come to other nodes",
            "pages that are there stay; run it under another policy to have later ones follow",
        )


def _elsewhere(policy: str, targets: NodeSet) -> bool:
    """Tell whether a policy, in the kernel's words, puts pages outside the targets."""
    mode, _, nodes = policy.partition(":")
    if mode in _NO_POLICY or not nodes:
        return False
    return not NodeSet.parse(nodes) <= targets


def _shared(plan: Plan, mappings: Sequence[Mapping], options: Options) -> Iterator[Concern]:
    shared = [mapping for mapping in mappings if mapping.most_mapped > 1]
    if shared and not options.shared:
        size_bytes = sum(mapping.resident_bytes for mapping in shared)
        yield Concern(
            "shared",
            f"process {plan.task.pid} has mappings of {format_size(size_bytes)} with pages that "
            "others map as well, and those stay",
            "move them for all their users with --shared",
        )


def _touched(plan: Plan, mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the mappings that have pages of a plan."""
    order = np.argsort(plan.start, kind="stable")
    starts = plan.start[order]
    ends = starts + (plan.pages * plan.page_size_bytes).view(np.uint64)[order]
    last_end = np.maximum.accumulate(ends) if len(ends) else ends
    below = np.array([mapping.start for mapping in mappings], dtype=np.uint64)
    above = np.array([mapping.end for mapping in mappings], dtype=np.uint64)
    before = np.searchsorted(starts, above, side="left") - 1  # the last run that starts below
    touched = (before >= 0) & (last_end[before] > below)
    return [mapping for mapping, yes in zip(mappings, touched.tolist(), strict=True) if yes]
