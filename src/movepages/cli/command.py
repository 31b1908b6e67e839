"""The shape that all subcommands share: help with an example, `--json`, clear usage errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON; see docs/json.md.")


@contextmanager
def moving(pid: int) -> Iterator[None]:
    """Say, where an interrupt ends the block, that pages may have moved by then."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.Abort(
            f"some pages of process {pid} may have moved: see movepages show {pid}"
        ) from None


def write_example(formatter: click.HelpFormatter, example: str) -> None:
    """Write example command lines into a help text, as they are."""
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class _Command(click.Command):
    def __init__(self, *args: Any, example: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name.lstrip("-")[:1].isdecimal():
                raise click.UsageError(
                    f"{error.option_name!r}: pids, addresses and nodes are not negative", ctx
                ) from None
            raise
        except click.BadOptionUsage as error:  # click leaves out whose option it is
            error.ctx = error.ctx or ctx
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_example(formatter, self.example)


def subcommand(
    name: str, *, example: str, **settings: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare the function that carries out a subcommand; its docstring is the help."""
    return click.command(name, cls=_Command, example=example, **settings)
