"""The memory policy of a program, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.abi import POLICY_FLAG_WORDS, POLICY_WORDS, Mode
from movepages.report.fields import number_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.nodeset import NodeSet
    from movepages.report.output import Output
    from movepages.values import Policy

_NAMES = {
    Mode.DEFAULT: "default",
    Mode.PREFERRED: "preferred",
    Mode.BIND: "bind",
    Mode.INTERLEAVE: "interleave",
    Mode.LOCAL: "local",
    Mode.PREFERRED_MANY: "preferred-many",
    Mode.WEIGHTED_INTERLEAVE: "weighted-interleave",
}
_ALL_FLAGS = sum(POLICY_FLAG_WORDS)


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """The policy that a program starts with, its CPUs and their nodes, and the nodes allowed."""

    policy: Policy
    cpus: NodeSet
    cpu_nodes: NodeSet
    allowed_nodes: NodeSet

    @property
    def name(self) -> str:
        """The policy in numactl's words; its number where it has no name here."""
        return _named(self.policy, _NAMES)

    @property
    def flags(self) -> list[str]:
        """The names of the flags of the mode."""
        return _flags(self.policy)


def kernel_words(policy: Policy) -> str:
    """Write a policy as numa_maps does: `bind=static:0-1` (mpol_to_str in mm/mempolicy.c)."""
    flags = "|".join(_flags(policy))
    mode = _named(policy, POLICY_WORDS) + (f"={flags}" if flags else "")
    return f"{mode}:{policy.nodes}" if policy.nodes else mode


def _named(policy: Policy, names: Mapping[Mode, str]) -> str:
    mode = policy.mode & ~_ALL_FLAGS
    return names[Mode(mode)] if mode in set(Mode) else str(mode)


def _flags(policy: Policy) -> list[str]:
    return [name for flag, name in POLICY_FLAG_WORDS.items() if policy.mode & flag]


def write_text(snapshot: PolicySnapshot, output: Output) -> None:
    """Write a line for each fact."""
    output.line(f"policy: {' '.join([snapshot.name, *snapshot.flags])}")
    output.line(f"nodes: {number_ranges(snapshot.policy.nodes)}")
    output.line(f"CPUs: {number_ranges(snapshot.cpus)}")
    output.line(f"nodes of these CPUs: {number_ranges(snapshot.cpu_nodes)}")
    output.line(f"nodes allowed: {number_ranges(snapshot.allowed_nodes)}")


def to_json(snapshot: PolicySnapshot) -> dict[str, Any]:
    """Return the same for a program."""
    return {
        "policy": snapshot.name,
        "flags": snapshot.flags,
        "nodes": list(snapshot.policy.nodes),
        "cpus": list(snapshot.cpus),
        "cpu_nodes": list(snapshot.cpu_nodes),
        "allowed_nodes": list(snapshot.allowed_nodes),
    }
