"""Memory policies: where a page that is touched comes from (mm/mempolicy.c).

An area's policy goes before its task's, and without either a page comes from the node of the CPU.
Policies are values: whoever changes one puts another in its place.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from movepages.abi import (
    MAX_NUMNODES,
    POLICY_FLAG_WORDS,
    POLICY_WORDS,
    Errno,
    Mode,
    ModeFlag,
)
from movepages.kernel.address_space import VmFlag
from movepages.kernel.mappings import NOT_CACHED, Backing
from movepages.kernel.mpol_alloc import Preference, allocate_by
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from numpy.typing import NDArray

    from movepages.kernel.address_space import Vma
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.mappings import File
    from movepages.kernel.semantics import Semantics
    from movepages.kernel.tasks import TaskStruct

    Indices = NDArray[np.int64]

USER_NODEMASK = ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES
"""With either flag a policy remembers the nodes that the user gave."""
HOME_MODES = frozenset({Mode.BIND, Mode.PREFERRED_MANY})
"""Modes that can have a home node."""
_INTERLEAVED = frozenset({Mode.INTERLEAVE, Mode.WEIGHTED_INTERLEAVE})
_NO_NODES = NodeSet()
_NO_FLAGS = ModeFlag(0)


@dataclass(frozen=True, slots=True)
class MemPolicy:
    """A policy in force: `nodes` are those that count now, `user_nodes` those that were asked for.

    `cpuset_mems` is what the cpuset allowed when `nodes` were made of them.
    """

    mode: Mode = Mode.DEFAULT
    nodes: NodeSet = _NO_NODES
    flags: ModeFlag = _NO_FLAGS
    user_nodes: NodeSet = _NO_NODES
    home_node: int = -1
    cpuset_mems: NodeSet = _NO_NODES

    @property
    def shown_nodes(self) -> NodeSet:
        """The nodes that get_mempolicy reports: with any flag of the mode the user's own."""
        return self.user_nodes if self.flags else self.nodes


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """What mbind and set_mempolicy are asked for."""

    mode: Mode
    flags: ModeFlag
    nodes: NodeSet

    def refusal(self) -> int:
        """Return -EINVAL if mode, flags and nodes do not fit together, else 0 (mpol_new)."""
        own = self.flags & USER_NODEMASK
        if self.mode is Mode.DEFAULT:
            fits = not self.nodes
        elif self.mode is Mode.LOCAL:
            fits = not self.nodes and not own
        elif self.mode is Mode.PREFERRED:
            fits = bool(self.nodes) or not own
        else:
            fits = bool(self.nodes)
        return 0 if fits else -Errno.EINVAL

    def contextualize(
        self, mems_allowed: NodeSet, with_memory: NodeSet, semantics: Semantics
    ) -> tuple[int, MemPolicy | None]:
        """Return an errno or 0, and the policy that a task gets (mpol_set_nodemask).

        None is MPOL_DEFAULT. -EINVAL if none of the nodes may be used.
        """
        if self.mode is Mode.DEFAULT:
            return 0, None
        if not self.nodes:  # PREFERRED without nodes is LOCAL, where there is such a mode
            local = Mode.LOCAL if Mode.LOCAL in semantics.modes else Mode.PREFERRED
            return 0, MemPolicy(local, flags=self.flags)
        usable = mems_allowed & with_memory
        relative = self.flags & ModeFlag.RELATIVE_NODES
        nodes = _relative(self.nodes, usable) if relative else self.nodes & usable
        if not nodes:
            return -Errno.EINVAL, None
        if self.mode is Mode.PREFERRED:
            nodes = NodeSet([min(nodes)])
        # Without a flag nothing asks for them again, and policies are equal without them.
        asked = self.nodes if self.flags else _NO_NODES
        return 0, MemPolicy(self.mode, NodeSet(nodes), self.flags, asked, cpuset_mems=mems_allowed)


def rebind(policy: MemPolicy | None, mems: NodeSet, semantics: Semantics) -> MemPolicy | None:
    """Return a policy as it is when its cpuset's mems have changed (mpol_rebind_policy)."""
    if policy is None or not policy.nodes:
        return policy
    own = policy.flags & USER_NODEMASK
    if not own and policy.cpuset_mems == mems:
        return policy
    keeps = policy.mode is Mode.PREFERRED_MANY
    keeps |= policy.mode is Mode.PREFERRED and not semantics.remaps_preferred
    if keeps:
        return replace(policy, cpuset_mems=mems)
    if own & ModeFlag.STATIC_NODES:
        nodes = NodeSet(policy.user_nodes & mems)
    elif own:
        nodes = _relative(policy.user_nodes, mems)
    else:
        nodes = NodeSet(node_remap(node, policy.cpuset_mems, mems) for node in policy.nodes)
    return replace(policy, nodes=nodes or mems, cpuset_mems=mems)


def node_remap(node: int, old: Set[int], new: Set[int]) -> int:
    """Return the node that has in `new` the place of a node in `old`, counted round (node_remap).

    A node that is not in `old` stays, and so do all if `new` is empty.
    """
    if node not in old or not new:
        return node
    return sorted(new)[sorted(old).index(node) % len(new)]


def _relative(nodes: NodeSet, base: Set[int]) -> NodeSet:
    """Take nodes as positions in `base`, counted round (mpol_relative_nodemask)."""
    onto = sorted(base)
    return NodeSet(onto[node % len(onto)] for node in nodes) if onto else NodeSet()


def mpol_to_str(policy: MemPolicy | None) -> str:
    """Write a policy as numa_maps does."""
    if policy is None or policy.mode is Mode.DEFAULT:
        return "default"
    if policy.mode is Mode.LOCAL or (policy.mode is Mode.PREFERRED and not policy.nodes):
        return "local"
    words = POLICY_WORDS[policy.mode]
    flags = "|".join(word for flag, word in POLICY_FLAG_WORDS.items() if policy.flags & flag)
    return f"{words}{'=' if flags else ''}{flags}:{policy.nodes}"


# -- where pages come from --------------------------------------------------------------------


class Interleaver(Protocol):
    """A task as far as interleaving by turns goes: which node it used last, and how often more."""

    policy: MemPolicy | None
    il_prev: int
    il_weight: int


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What an allocation goes by beside the policy: the task's node and cpuset, and the machine."""

    local: int
    mems_allowed: NodeSet
    zonelists: Mapping[int, Sequence[int]]
    weights: Mapping[int, int]
    semantics: Semantics
    online: NodeSet

    @classmethod
    def of(cls, machine: SimulatedMachine, task: TaskStruct) -> Surroundings:
        """Return those of a task."""
        return cls(
            machine.node_of_cpu(task.cpu),
            task.cpuset.mems,
            machine.memory.frames.zonelists,
            machine.interleave_weights,
            machine.semantics,
            NodeSet(node.id for node in machine.memory.frames.nodes.values() if node.online),
        )

    def zonelist(self, node: int, mask: Set[int] | None = None) -> tuple[int, ...]:
        """Return the nodes to try from a node on: those of the cpuset, of a mask if given."""
        within = self.mems_allowed if mask is None else self.mems_allowed & mask
        return tuple(other for other in self.zonelists[node] if other in within)


def preference(policy: MemPolicy | None, at: Surroundings, ilx: Indices) -> Preference:
    """Return from which nodes pages come, by their interleave index (policy_nodemask)."""
    if policy is not None and policy.nodes and policy.mode in _INTERLEAVED:
        cycle = interleave_cycle(policy, at.weights)
        nodes = sorted(set(cycle))
        lists = tuple(at.zonelist(node) for node in nodes)
        return Preference(lists, np.searchsorted(nodes, np.array(cycle)[ilx % len(cycle)]))
    return Preference.same(_one_list(policy, at), len(ilx))


def _one_list(policy: MemPolicy | None, at: Surroundings) -> tuple[int, ...]:
    if policy is None or not policy.nodes:
        return at.zonelist(at.local)
    if policy.mode is Mode.PREFERRED:
        return at.zonelist(min(policy.nodes))
    start = at.local if policy.home_node < 0 else policy.home_node
    chosen = at.zonelist(start, policy.nodes)
    if policy.mode is Mode.PREFERRED_MANY:
        return tuple(dict.fromkeys(chosen + at.zonelist(start)))
    if not at.semantics.bind_nearest_first:  # bind_zonelist() of 2006 goes by number
        chosen = tuple(sorted(chosen))
    return chosen or at.zonelist(start)


def interleave_cycle(policy: MemPolicy, weights: Mapping[int, int]) -> list[int]:
    """Return the nodes of one round of interleaving, each as often as it weighs."""
    weighted = policy.mode is Mode.WEIGHTED_INTERLEAVE
    return [node for node in policy.nodes for _ in range(weights[node] if weighted else 1)]


def set_task_policy(task: Interleaver, policy: MemPolicy | None) -> None:
    """Give a task a policy; interleaving begins anew (do_set_mempolicy)."""
    task.policy = policy
    if policy is not None and policy.mode in _INTERLEAVED:
        task.il_prev, task.il_weight = MAX_NUMNODES - 1, 0


def next_interleave_node(task: Interleaver) -> int:
    """Return the node that a task's interleaving comes to next, or -EINVAL (MPOL_F_NODE)."""
    policy = task.policy
    if policy is None or policy.mode not in _INTERLEAVED:
        return -Errno.EINVAL
    return _next_node(policy, task)


def _next_node(policy: MemPolicy, task: Interleaver) -> int:
    """Return the node that interleaving by turns comes to next."""
    if task.il_weight and task.il_prev in policy.nodes:
        return task.il_prev
    return min((node for node in policy.nodes if node > task.il_prev), default=min(policy.nodes))


def place(
    machine: SimulatedMachine, task: TaskStruct, vma: Vma, pages: Indices, order: int
) -> Indices:
    """Allocate folios for a fault on pages of an area, by the policy that holds there.

    Return the heads, of as many of the pages as there was memory for (vma_alloc_folio).
    """
    at = Surroundings.of(machine, task)
    found = []
    for policy, chosen in _policies(machine, task, vma, pages):
        if _fills_page_cache(vma, chosen):
            wants = preference(task.policy, at, by_turns(task, at, len(chosen)))
        else:
            ilx = (vma.offset >> order) + ((chosen - vma.start) >> order)
            wants = preference(policy, at, ilx)
        heads = _allocate(machine, vma, wants, order)
        found.append(heads)
        if len(heads) < len(chosen):
            break
    return np.concatenate(found) if found else pages[:0]


def _allocate(machine: SimulatedMachine, vma: Vma, wants: Preference, order: int) -> Indices:
    memory = machine.memory

    def take(node: int, count: int) -> Indices:
        if vma.flags & VmFlag.HUGETLB:
            return memory.pools.take(node, count, order)
        return memory.frames.allocate(node, count, order)

    def reclaim(node: int, count: int) -> int:
        return 0 if order else memory.swap.reclaim(node, count)

    heads = allocate_by(wants, take, memory.frames.put, reclaim)
    return heads[heads >= 0]


def _fills_page_cache(vma: Vma, pages: Indices) -> bool:
    """Tell whether pages are for the page cache of an ordinary file, which no area's policy rules.

    What is not in the cache yet comes to be there; what is in it is copied on write.
    """
    file = vma.file
    if file is None or file.backing in {Backing.SHMEM, Backing.HUGETLB} or not len(pages):
        return False
    return bool(file.cache[vma.offset + pages[0] - vma.start] == NOT_CACHED)


def by_turns(task: Interleaver, at: Surroundings, count: int) -> Indices:
    """Return interleave indices that go on from the task's last (interleave_nodes)."""
    policy = task.policy
    if policy is None or not policy.nodes or policy.mode not in _INTERLEAVED or not count:
        return np.zeros(count, dtype=np.int64)
    cycle = interleave_cycle(policy, at.weights)
    node = _next_node(policy, task)
    first = cycle.index(node)
    if node == task.il_prev and task.il_weight:
        first += cycle.count(node) - task.il_weight
    last = (first + count - 1) % len(cycle)
    task.il_prev = cycle[last]
    task.il_weight = cycle.index(cycle[last]) + cycle.count(cycle[last]) - 1 - last
    return first + np.arange(count)


# -- the policies of areas --------------------------------------------------------------------


class SharedPolicies:
    """Policies of shared memory: they belong to its pages, whoever maps them (shared_policy)."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ranges: dict[int, list[tuple[int, int, MemPolicy]]] = {}

    def set(self, file: File, start: int, end: int, policy: MemPolicy | None) -> None:
        """Set the policy of pages `start` to `end` of a file, or take it away."""
        kept = []
        for first, last, other in self._ranges.get(file.id, ()):
            kept.append((first, min(last, start), other))
            kept.append((max(first, end), last, other))
        if policy is not None:
            kept.append((start, end, policy))
        self._ranges[file.id] = sorted(
            (piece for piece in kept if piece[0] < piece[1]), key=lambda piece: piece[0]
        )

    def at(self, file: File, page: int) -> tuple[MemPolicy | None, int]:
        """Return the policy of a page of a file, and the page where another begins."""
        ranges = self._ranges.get(file.id, [])
        index = bisect_right([first for first, _, _ in ranges], page) - 1
        if index >= 0 and page < ranges[index][1]:
            return ranges[index][2], ranges[index][1]
        return None, ranges[index + 1][0] if index + 1 < len(ranges) else file.pages


def set_vma_policy(machine: SimulatedMachine, vma: Vma, policy: MemPolicy | None) -> None:
    """Give an area a policy, and shared memory that it maps (vma_replace_policy)."""
    vma.policy = policy
    if vma.file is not None and vma.file.backing is Backing.SHMEM:
        machine.shared_policies.set(vma.file, vma.offset, vma.offset + vma.pages, policy)


def vma_policy(machine: SimulatedMachine, vma: Vma, page: int) -> tuple[MemPolicy | None, int]:
    """Return the policy of a page of an area, and the page where it may end (__get_vma_policy)."""
    if vma.file is None or vma.file.backing is not Backing.SHMEM:
        return vma.policy, vma.end
    shift = vma.start - vma.offset
    policy, end = machine.shared_policies.at(vma.file, page - shift)
    return policy, end + shift


def _policies(
    machine: SimulatedMachine, task: TaskStruct, vma: Vma, pages: Indices
) -> Iterator[tuple[MemPolicy | None, Indices]]:
    """Go through pages, in rising order, by the policy that holds for each: area, then task."""
    at = 0
    while at < len(pages):
        policy, end = vma_policy(machine, vma, int(pages[at]))
        until = max(at + 1, int(np.searchsorted(pages, end)))
        yield policy or task.policy, pages[at:until]
        at = until
