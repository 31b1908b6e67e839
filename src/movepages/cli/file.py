"""`movepages file`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.carrying import carrying_without_ledger
from movepages.cli.command import json_option, subcommand
from movepages.cli.complaint import complain
from movepages.cli.objects import Mapped, carry_out, read_carrying, read_target, write_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from movepages.cli.exit_codes import ExitCode
    from movepages.cli.session import Session
    from movepages.report.objects import ObjectsSnapshot


@subcommand(
    "file",
    example="movepages file /srv/data/*\n"
    "movepages file /srv/data/index --to 1\n"
    "movepages file /srv/data/index --to 0,1 --shared --limit-rate 1G/s",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--to", metavar="NODES", help="Where to: 1, 0-3, all, '!1', +0-1.")
@carrying_without_ledger
@json_option
@click.pass_obj
def run(
    session: Session,
    /,
    *,
    paths: tuple[str, ...],
    to: str | None,
    as_json: bool,
    **settings: Any,
) -> ExitCode:
    """Show on which nodes the cached pages of files are, or move them.

    A file's pages in memory (the page cache, or all there is of a file on tmpfs) are shown by node.
    Nothing is read from disk: what is not in memory stays out.

    With --to they are moved, and all programs go on using them. Pages that a program has mapped are
    moved with --shared only. Pages that are read in later come to the node of their reader.
    """
    how = read_carrying(to, settings)
    target = read_target(session, to)
    from movepages.linux.object_memory import file_memory
    from movepages.report.objects import ObjectFacts

    def write(snapshot: ObjectsSnapshot) -> None:
        write_objects(session, snapshot, "files", as_json=as_json)

    with ExitStack() as kept:
        objects = []
        for path in dict.fromkeys(paths if to is not None else _files(paths)):
            memory = kept.enter_context(file_memory(Path(path)))
            objects.append(Mapped(ObjectFacts(path, memory.size_bytes), memory))
        return carry_out(session, objects, target, how, write)


def _files(paths: Sequence[str]) -> list[str]:
    """Leave out directories among files, as a shell's `*` names them, and say so."""
    files = [path for path in paths if not Path(path).is_dir()]
    if not files:
        return list(paths)  # the first of them is refused
    for path in dict.fromkeys(paths):
        if path not in files:
            complain(f"warning: {path} is a directory and left out; name files")
    return files
