"""`movepages move`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from movepages.abi import MoveFlag
from movepages.cli.command import json_option, moving, subcommand
from movepages.cli.exit_codes import ExitCode
from movepages.cli.parameters import PID, SPAN, Span, target_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from movepages.cli.session import Session
    from movepages.machine import Machine
    from movepages.nodeset import NodeSet
    from movepages.values import PageRuns


@subcommand(
    "move",
    example="movepages move 1234 --to 1 7f12a4000000-7f12a8000000\n"
    "movepages move 1234 --to 0-3 --all-mappings",
)
@click.argument("pid", type=PID)
@click.argument("spans", metavar="[ADDRESS|START-END]...", type=SPAN, nargs=-1)
@click.option(
    "--to", required=True, metavar="NODES", help="Where to: 1, 0-3, 0,2, all, '!1' or +0."
)
@click.option("--all-mappings", is_flag=True, help="Move all memory of the process.")
@click.option("--shared", is_flag=True, help="Move pages that others map, too (CAP_SYS_NICE).")
@json_option
@click.pass_obj
def run(
    session: Session,
    *,
    pid: int,
    spans: tuple[Span, ...],
    to: str,
    all_mappings: bool,
    shared: bool,
    as_json: bool,
) -> ExitCode:
    """Move pages of process PID to other nodes.

    Name single addresses, ranges as `show --all` lists them, or --all-mappings. In ranges, what is
    present moves. Several nodes get the pages in turn. Pages that other processes map stay, unless
    --shared is given.

    `all`, `!` (all but) and `+` (relative) refer to the cpuset of the process, which no page can
    leave. It ends with the pages by outcome, and what to do about those that did not move.
    """
    if all_mappings == bool(spans):
        raise click.UsageError("give addresses or ranges, or else --all-mappings")
    from movepages.placement.mover import move
    from movepages.report import moves as report

    machine = session.machine
    task = session.task(pid)
    target = target_nodes("--to", to, machine.topology(), task)
    pages = _pages(machine, pid, spans)
    flags = MoveFlag.MOVE_ALL if shared else MoveFlag.MOVE
    with moving(pid):
        moved = move(
            machine,
            pid,
            pages.address,
            _in_turn(target, len(pages.address)),
            flags,
            page_sizes=pages.size_bytes,
        )
    snapshot = report.MoveSnapshot(
        pid=pid,
        command=task.command,
        target=target,
        report=moved,
        span_bytes=pages.span_bytes,
        present_bytes=pages.present_bytes,
    )
    if as_json:
        from movepages.report.json import write_document

        write_document(session.output, report.move_json(snapshot))
    elif not moved.error or moved.moved:
        report.write_move_text(snapshot, session.output)
    if moved.error:
        raise moved.error
    return ExitCode.DONE if moved.complete else ExitCode.NOT_MOVED


@dataclass(frozen=True, slots=True, eq=False)
class _Pages:
    """The pages to move, one address for each folio, and how much memory they are."""

    address: NDArray[np.uint64]
    size_bytes: NDArray[np.int64]
    span_bytes: int
    present_bytes: int


def _pages(machine: Machine, pid: int, spans: Sequence[Span]) -> _Pages:
    """Return what is present in the spans (none: in all mappings).

    A single address stays among them though no page is there: the kernel will say why.
    """
    import numpy as np

    from movepages.placement.select import pages_of

    bounds = [span.pages(machine.page_size_bytes) for span in spans]
    ranges = _merged(bounds)
    runs = pages_of(machine, pid, ranges if spans else None)
    singles = {start for span, (start, _) in zip(spans, bounds, strict=True) if span.end is None}
    absent = _outside(runs, np.array(sorted(singles), dtype=np.uint64))
    address = np.concatenate([runs.addresses(), absent])
    sizes = np.concatenate(
        [
            np.repeat(runs.page_size_bytes, runs.pages),
            np.full(len(absent), machine.page_size_bytes, dtype=np.int64),
        ]
    )
    order = np.argsort(address, kind="stable")
    return _Pages(
        address[order],
        sizes[order],
        sum(end - start for start, end in ranges),
        runs.total_bytes,
    )


def _merged(bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in rising order, those that overlap or touch joined."""
    ranges: list[tuple[int, int]] = []
    for start, end in sorted(bounds):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def _outside(runs: PageRuns, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the addresses that lie in none of the runs."""
    import numpy as np

    if not len(runs):
        return addresses
    ends = runs.start + (runs.pages * runs.page_size_bytes).view(np.uint64)
    before = np.searchsorted(runs.start, addresses, side="right") - 1
    inside = (before >= 0) & (addresses < ends[before])
    return addresses[~inside]


def _in_turn(nodes: NodeSet, pages: int) -> NDArray[np.int32]:
    """Return a node for each page, the nodes taking turns."""
    import numpy as np

    return np.resize(np.array(list(nodes), dtype=np.int32), pages)
