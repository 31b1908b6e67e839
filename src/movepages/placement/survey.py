"""What a caller can move on a machine, and what else bears on it: found out by trying."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from movepages.abi import CALLS
from movepages.errors import NotPermittedError, UnsupportedError
from movepages.placement.doctor import (
    Answer,
    Check,
    check_call,
    check_move,
    check_nodes,
    check_shared,
    note,
    refused_call,
    yes,
)
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from movepages.machine import Machine
    from movepages.topology import Topology
    from movepages.values import Conditions, Settings

_ESSENTIAL = "move_pages"


def examine_machine(machine: Machine) -> tuple[Check, ...]:
    """Find out what the caller can move here, and what the kernel's settings mean for it."""
    call, settings, conditions = check_call(machine), machine.settings(), machine.conditions()
    checks = [*check_nodes(machine), call, *_other_calls(settings)]
    if call.answer is Answer.YES:
        checks += [_own(machine), _others(machine), *check_shared(machine)]
    checks += [_frames(conditions), *_reclaim(conditions, settings)]
    if settings.thp is not None:
        checks.append(
            yes("thp", f"transparent huge pages are made: {settings.thp}; each moves as one page")
        )
    with suppress(UnsupportedError):  # said already: there are no nodes
        topology = machine.topology()
        checks += [*_pools(topology), _weights(topology)]
    checks += _perf(settings)
    return tuple(checks)


def _other_calls(settings: Settings) -> Iterator[Check]:
    """Tell which other calls there are; without those pages can be moved all the same."""
    refused = {error.call: error for error in settings.refused if error.call != _ESSENTIAL}
    for error in refused.values():
        check = refused_call(error)
        yield note(check.name, check.says, check.remedy)
    if not settings.refused:
        names = ", ".join(call for call in CALLS if call != _ESSENTIAL)
        yield yes("calls", f"the other NUMA calls are answered: {names}")


def _own(machine: Machine) -> Check:
    """Move a page of this process to where it is."""
    task = machine.task(0)
    try:
        check = check_move(machine, task, machine.mappings(task.pid))
    except NotPermittedError as error:  # a process that is not dumpable may not look at itself
        return note("move", f"this process may not look at itself: {error}", "run it as its user")
    if check.answer is not Answer.YES:
        return check
    return yes("move", "a page of this process was moved to where it is")


def _others(machine: Machine) -> Check:
    if machine.standing(0).may_trace:
        return yes("rights", "processes of all users can be looked at and moved (CAP_SYS_PTRACE)")
    return note(
        "rights",
        "only your own processes can be looked at and moved",
        "run as root (CAP_SYS_PTRACE) for those of others",
    )


def _frames(conditions: Conditions) -> Check:
    if conditions.sees_pfns:
        return yes("page frames", "page frame numbers are visible: pages are located fast")
    return note(
        "page frames",
        "page frame numbers are hidden, so locating pages takes several times as long",
        "run as root (CAP_SYS_ADMIN)",
    )


def _reclaim(conditions: Conditions, settings: Settings) -> Iterator[Check]:
    """Tell what the kernel does to pages of its own accord, above all when memory is short."""
    if conditions.numa_balancing == 0:
        yield yes("numa balancing", "NUMA balancing is off: pages stay where they are put")
    if conditions.swap_bytes:
        yield note(
            "swap",
            f"there are {format_size(conditions.swap_bytes)} of swap space; pages that are swapped "
            "out are on no node, and come back to any",
            "lock what has to stay (mlock(2)), or switch swap off",
        )
    else:
        yield yes("swap", "there is no swap space: pages are not swapped out")
    if settings.zone_reclaim_mode:
        yield note(
            "zone reclaim",
            f"zone_reclaim_mode is {settings.zone_reclaim_mode}: a node that runs full drops its "
            "caches before other nodes are asked for memory",
            "switch it off: sysctl vm.zone_reclaim_mode=0",
        )


def _pools(topology: Topology) -> Iterator[Check]:
    pools = [(node.id, pool) for node in topology for pool in node.huge_pools if pool.total]
    if not pools:
        return
    listed = ", ".join(
        f"node {node} {pool.free} of {pool.total} ({format_size(pool.page_size_bytes)})"
        for node, pool in pools
    )
    says = f"free hugetlb pages: {listed}"
    free = {node for node, pool in pools if pool.free}
    without = topology.with_memory - free
    if not without:
        yield yes("hugetlb", says)
        return
    yield note(
        "hugetlb",
        f"{says}; none on node{'s' if len(without) > 1 else ''} {without}",
        "hugetlb pages need free ones where they go: write to nr_hugepages of the node",
    )


def _weights(topology: Topology) -> Check:
    weights = {node.id: node.weight for node in topology if node.has_memory}
    if all(weights.values()):
        listed = ", ".join(f"node {node} {weight}" for node, weight in weights.items())
        return yes("weighted interleave", f"the kernel has weights to interleave by: {listed}")
    return note(
        "weighted interleave",
        "the kernel has no weights to interleave by (/sys/kernel/mm/mempolicy)",
        "boot Linux 6.9 or later, or spread with weights of your own: movepages spread --weights",
    )


def _perf(settings: Settings) -> Iterator[Check]:
    paranoid = settings.perf_event_paranoid
    if paranoid is None:
        return
    if paranoid <= 2:
        yield yes("perf events", f"you may profile your own programs (paranoid {paranoid})")
        return
    yield note(
        "perf events",
        f"profiling is for CAP_PERFMON only (perf_event_paranoid is {paranoid})",
        "run as root, or: sysctl kernel.perf_event_paranoid=2",
    )
