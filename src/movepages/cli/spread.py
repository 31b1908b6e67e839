"""`movepages spread`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import Carrying, carrying
from movepages.cli.command import json_option, subcommand
from movepages.cli.operation import finish, plan_each, selected
from movepages.cli.parameters import SPAN, Span, target_nodes
from movepages.cli.selecting import Selectors, selecting

if TYPE_CHECKING:
    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.nodeset import NodeSet
    from movepages.topology import Topology
    from movepages.values import Plan, TaskInfo

_WEIGHT = re.compile(r"0*[1-9][0-9]{0,5}", re.ASCII)


@subcommand(
    "spread",
    example="movepages spread 1234 --to 0-3\n"
    "movepages spread 1234 --to 0,2 --weights 3,1 --heap\n"
    "movepages spread name:postgres --to all --weights kernel --shm --shared",
)
@click.argument("target")
@click.argument("spans", metavar="[ADDRESS|START-END]...", type=SPAN, nargs=-1)
@click.option("--to", required=True, metavar="NODES", help="Over which: 0-3, 0,2, all, '!1', +0-1.")
@click.option(
    "--weights", metavar="LIST", help="How much each gets, in rising order: 3,1; or kernel."
)
@selecting
@carrying
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    target: str,
    spans: tuple[Span, ...],
    to: str,
    weights: str | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Spread pages of processes over nodes, evenly or by weights.

    TARGET is a pid or what else `movepages move` takes. All memory is meant, unless you name
    addresses, ranges or a kind.

    Each node gets its share of the pages, those that are on one of the nodes already included,
    which mbind(2) would leave alone. Only what a node has beyond its share moves, taken from all
    along its memory. Run it again after the process has grown.

    `--weights kernel` takes those of the policy weighted interleave, as `movepages nodes` shows.
    """
    selectors, how = Selectors.take(settings), Carrying.take(settings)
    machine, topology = session.machine, session.machine.topology()
    selection = selected(machine, selectors, spans)
    from movepages.placement.spread import plan_spread

    def plan_one(task: TaskInfo) -> tuple[Plan, NodeSet]:
        nodes = target_nodes("--to", to, topology, task)
        weighing = None if weights is None else _weights(weights, nodes, topology)
        return plan_spread(machine, task, selection, nodes, weighing), nodes

    snapshot, plans = plan_each(machine, target, spans, selection, plan_one)
    return finish(session, snapshot, plans, how, as_json=as_json)


def _weights(text: str, nodes: NodeSet, topology: Topology) -> dict[int, int]:
    """Read the weight of each node. Raises UsageError."""
    if text == "kernel":
        return _kernel_weights(nodes, topology)
    words = text.split(",")
    if not all(_WEIGHT.fullmatch(word) for word in words):
        raise click.UsageError(
            f"--weights: {text!r} are not weights; give whole numbers from 1 on, as 3,1, or kernel"
        )
    if len(words) != len(nodes):
        raise click.UsageError(
            f"--weights: {text!r} has {len(words)} weights for {len(nodes)} nodes ({nodes}); "
            "give one for each"
        )
    return dict(zip(nodes, map(int, words), strict=True))


def _kernel_weights(nodes: NodeSet, topology: Topology) -> dict[int, int]:
    """Return the kernel's weights. Raises UsageError where it has none."""
    weights = {node.id: node.weight for node in topology if node.id in nodes}
    known = {node: weight for node, weight in weights.items() if weight}
    if len(known) < len(nodes):
        raise click.UsageError(
            "--weights: this kernel has no weights of nodes, as Linux 6.9 and later have; "
            "give numbers"
        )
    return known
