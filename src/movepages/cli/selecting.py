"""Options that say which pages are meant, for every command that moves some."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from movepages.cli.parameters import SIZE, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from movepages.placement.select import Selection
    from movepages.topology import Topology

_KINDS = ("heap", "stack", "anon", "shm", "hugetlb")

_OPTIONS = (
    click.option("--all-mappings", is_flag=True, help="All memory of the process."),
    click.option("--heap", is_flag=True, help="What the program got from brk."),
    click.option("--stack", is_flag=True, help="The main thread's stack."),
    click.option("--anon", is_flag=True, help="All memory without a file: heap, stack, others."),
    click.option("--shm", is_flag=True, help="Shared memory: SysV, POSIX, memfd, anonymous."),
    click.option("--hugetlb", is_flag=True, help="Mappings of hugetlb pages."),
    click.option(
        "--file", "files", metavar="GLOB", multiple=True, help="Files, by name or path: '*.so*'."
    ),
    click.option("--thp", is_flag=True, help="Only transparent huge pages."),
    click.option("--writable", is_flag=True, help="Only mappings that it may write to."),
    click.option("--on", "on_nodes", metavar="NODES", help="Only pages on these nodes."),
    click.option("--policy", metavar="WORD", help="Only under this memory policy: bind, default."),
    click.option(
        "--larger-than", type=SIZE, metavar="SIZE", help="Only mappings longer than that."
    ),
    click.option("--select", "text", metavar="TEXT", help="Only those: 'anon & ~file(\"*.so*\")'."),
)


@dataclass(frozen=True, slots=True)
class Selectors:
    """What the selecting options said. Kinds add up; what begins with "only" narrows."""

    all_mappings: bool
    kinds: tuple[str, ...]
    files: tuple[str, ...]
    thp: bool
    writable: bool
    on_nodes: str | None
    policy: str | None
    larger_than: int | None
    text: str | None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Selectors:
        """Take the selecting options out of a command's options."""
        kinds = tuple(kind for kind in _KINDS if options.pop(kind))
        names = ("all_mappings", "files", "thp", "writable", "on_nodes", "policy", "larger_than")
        taken = {name: options.pop(name) for name in (*names, "text")}
        return cls(kinds=kinds, **taken)

    @property
    def given(self) -> bool:
        """Whether any of the options was given."""
        return bool(self.kinds or self.all_mappings or self._narrowing)

    def selection(
        self, spans: Sequence[Span], page_size_bytes: int, topology: Topology
    ) -> Selection:
        """Return the selection, of the pages in some spans where there are any.

        Raises UsageError where it is not said what is meant, ArgumentError, NodeSetError.
        """
        if self.all_mappings and (spans or self.kinds or self.files):
            raise click.UsageError(
                "give addresses or ranges, or else --all-mappings, or else kinds such as --heap"
            )
        if not spans and not self.given:
            raise click.UsageError(
                "give addresses or ranges, or else --all-mappings or a selection such as --heap"
            )
        from movepages.nodeset import NodeSet
        from movepages.placement import select

        wide = [getattr(select, kind)() for kind in self.kinds]
        wide += [select.file(glob) for glob in self.files]
        ranges = [select.within(*span.pages(page_size_bytes)) for span in spans]
        parts = [reduce(_either, those) for those in (wide, ranges) if those]
        if self.thp:
            parts.append(select.thp())
        if self.writable:
            parts.append(select.writable())
        if self.on_nodes is not None:
            parts.append(select.on_node(NodeSet.parse(self.on_nodes, existing=topology.online)))
        if self.policy is not None:
            parts.append(select.policy(self.policy))
        if self.larger_than is not None:
            parts.append(select.larger_than(self.larger_than))
        if self.text is not None:
            parts.append(select.parse(self.text, existing=topology.online))
        return reduce(_both, parts) if parts else select.everything()

    @property
    def _narrowing(self) -> bool:
        given = (self.files, self.thp, self.writable, self.on_nodes, self.policy, self.text)
        return any(given) or self.larger_than is not None


def _either(one: Selection, other: Selection) -> Selection:
    return one | other


def _both(one: Selection, other: Selection) -> Selection:
    return one & other


def selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the selecting options; `Selectors.take` takes them from what it is handed."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
