"""Read a selection from text: what `str` of one writes, and what a person would write.

    anon & on_node(0) & ~file("*.so*")
    (heap | stack) & larger_than(1M)
    within(7f12a4000000, 7f12a8000000)

`&` binds closer than `|`, and `~` closest. Parentheses behind a word without arguments may be left
out. Numbers are read as everywhere: addresses are hexadecimal, sizes have a suffix, nodes are a
list like 0-3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from movepages.errors import ArgumentError
from movepages.nodeset import NodeSet
from movepages.placement import predicates
from movepages.units import parse_address, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from movepages.placement.selection import Selection

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<sign>[&|~(),])
    |(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<word>[^\s&|~(),'"]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_DEEPEST = 50
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


def parse(text: str, *, existing: Set[int] | None = None) -> Selection:
    """Read a selection. Raises ArgumentError, SizeError, NodeSetError.

    `existing` are the nodes of a machine: then `all` and `!` may be said of nodes, and a node that
    is not among them is refused.
    """
    reader = _Reader(text, existing)
    selection = reader.either(0)
    if reader.ahead:
        raise reader.error(f"{reader.ahead!r} is not expected there")
    return selection


def _makers(existing: Set[int] | None) -> dict[str, tuple[int, Callable[..., Selection]]]:
    """Return what each word takes, and what it makes of that."""
    return {
        "everything": (0, predicates.Everything),
        "heap": (0, lambda: predicates.Kind("heap")),
        "stack": (0, lambda: predicates.Kind("stack")),
        "anon": (0, lambda: predicates.Kind("anon")),
        "shm": (0, lambda: predicates.Kind("shm")),
        "hugetlb": (0, predicates.Huge),
        "thp": (0, predicates.Thp),
        "writable": (0, predicates.Writable),
        "file": (1, predicates.File),
        "policy": (1, predicates.PolicyWord),
        "larger_than": (1, lambda size: predicates.LargerThan(parse_size(size))),
        "on_node": (1, lambda nodes: predicates.OnNode(NodeSet.parse(nodes, existing=existing))),
        "within": (2, lambda *ends: predicates.Within(*map(parse_address, ends))),
    }


class _Reader:
    """Goes through the tokens of a text; `ahead` is the next one, empty at the end."""

    def __init__(self, text: str, existing: Set[int] | None) -> None:
        self._text = text
        self._makers = _makers(existing)
        self._at = 0
        self.ahead = ""
        self._quoted = False
        self._next()

    def either(self, depth: int) -> Selection:
        """Read selections with `|` between them."""
        selection = self._both(depth)
        while self._take("|"):
            selection = selection | self._both(depth)
        return selection

    def error(self, what: str) -> ArgumentError:
        """Make the error for what stands ahead."""
        return ArgumentError(
            f"selection {self._text!r}: {what}; write it like anon & on_node(0) & ~file('*.so*'), "
            f"with {', '.join(self._makers)}"
        )

    def _both(self, depth: int) -> Selection:
        selection = self._single(depth)
        while self._take("&"):
            selection = selection & self._single(depth)
        return selection

    def _single(self, depth: int) -> Selection:
        if depth > _DEEPEST:
            raise self.error(f"it is nested more than {_DEEPEST} deep")
        if self._take("~"):
            return ~self._single(depth + 1)
        if self._take("("):
            selection = self.either(depth + 1)
            self._expect(")")
            return selection
        return self._named()

    def _named(self) -> Selection:
        name, known = self.ahead, self.ahead in self._makers and not self._quoted
        if not known:
            raise self.error(f"{name!r} selects nothing" if name else "it ends too early")
        self._next()
        takes, make = self._makers[name]
        arguments = self._arguments() if self._take("(") else []
        if len(arguments) != takes:
            raise self.error(f"{name} takes {takes or 'no'} argument{'s' * (takes != 1)}")
        return make(*arguments)

    def _arguments(self) -> list[str]:
        arguments: list[str] = []
        while not self._take(")"):
            if arguments:
                self._expect(",")
            if not self._quoted and (self.ahead in set("&|~(),") or not self.ahead):
                raise self.error("an argument is missing")
            arguments.append(self.ahead)
            self._next()
        return arguments

    def _take(self, sign: str) -> bool:
        if self._quoted or self.ahead != sign:
            return False
        self._next()
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self.error(f"{sign!r} is missing")

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        rest = self._text[self._at :].strip()
        if match is None and rest:
            raise self.error(f"{rest[:20]!r} cannot be read")
        quoted = match["quoted"] if match else None
        self._quoted = quoted is not None
        self._at = match.end() if match else len(self._text)
        self.ahead = _unquoted(quoted) if quoted is not None else match[0].strip() if match else ""


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _NAMED.get(escape, escape)
