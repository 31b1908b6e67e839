"""Where threads ran, and what came of following them, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from movepages.abi import status_name
from movepages.nodeset import NodeSet
from movepages.report.fields import counted, percent
from movepages.report.moves import MoveSnapshot, explain_failures, move_json, node_names
from movepages.report.process import title
from movepages.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.placement.habit import Patience
    from movepages.placement.keep_near import Ended, Followed
    from movepages.placement.objects import Sums
    from movepages.placement.running import Running
    from movepages.report.output import Output
    from movepages.values import TaskInfo


def ran(running: Running) -> str:
    """Say where threads ran: `ran 93% on node 1, 7% on node 0`."""
    if not running.share:
        return "ran on no CPU that belongs to a node"
    most_first = sorted(running.share.items(), key=lambda item: (-item[1], item[0]))
    nodes = ", ".join(f"{percent(share)} on node {node}" for node, share in most_first)
    return f"ran {nodes}" if running.ran else f"did not run; by their last CPUs they are {nodes}"


def write_watching(
    task: TaskInfo, bytes_by_node: Mapping[int, int], patience: Patience, output: Output
) -> None:
    """Say of a process that it is followed from here on, and where its memory is."""
    size = format_size(sum(bytes_by_node.values()))
    there = f" on {node_names(NodeSet(bytes_by_node))}" if bytes_by_node else ""
    output.styled(
        (title(task.command, task.pid), "bold"),
        (f": {size}{there}; looking at its threads every {patience.every_s:g}s", ""),
    )
    output.stream.flush()


def write_followed(event: Followed | Ended, output: Output) -> None:
    """Write a line about a move, or the end of a process, at once."""
    from movepages.placement.keep_near import Ended

    who = title(event.task.command, event.task.pid)
    what = "has ended" if isinstance(event, Ended) else _moved(event)
    output.sentence(f"{_since(event.seconds):>7}  {who} {what}", indent=9)
    output.stream.flush()


def _moved(followed: Followed) -> str:
    ledger = followed.ledger
    failed = "".join(
        f", {pages:,} stayed ({status_name(status)})" for status, pages in ledger.failed().items()
    )
    crowded = f", no room for {ledger.plan.crowded_pages:,}" if ledger.plan.crowded_pages else ""
    return (
        f"{ran(followed.running)}: {counted(ledger.moved_pages, 'page')} "
        f"({format_size(ledger.moved_bytes)}) to {node_names(NodeSet(ledger.plan.bytes_by_target))}"
        f"{failed}{crowded}"
    )


def write_account(moves: int, sums: Sums, output: Output) -> None:
    """Write what became of all pages, and why some stayed."""
    failed = sum(sums.failed().values())
    untried = f", {counted(sums.untried_pages, 'page')} not tried" if sums.untried_pages else ""
    output.sentence(
        f"{counted(moves, 'move')}: {counted(sums.moved_pages, 'page')} "
        f"({format_size(sums.moved_bytes)}) moved, {counted(failed, 'page')} failed{untried}"
    )
    explain_failures([sums], output)


def followed_json(event: Followed | Ended, selection: str) -> dict[str, Any]:
    """Return a move for a program, as `move` tells of it; or the end of a process."""
    from movepages.placement.keep_near import Ended

    seconds = {"seconds": event.seconds}
    if isinstance(event, Ended):
        return {**seconds, "pid": event.task.pid, "command": event.task.command, "moved": None}
    plan = event.ledger.plan
    snapshot = MoveSnapshot(
        commands=(event.task.command,),
        target=NodeSet(plan.bytes_by_target),
        selection=selection,
        remarks=(f"Its threads {ran(event.running)}.",),
    ).moved([plan], [event.ledger], [])
    return {**seconds, **move_json(snapshot)}


def _since(seconds: float) -> str:
    """Write a time since the beginning: `0:07`, `12:40`, `3:00:00`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
