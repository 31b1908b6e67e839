"""Sets of memory nodes: as numactl's users write them, and as bit masks for the kernel."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Set
from typing import TYPE_CHECKING, Any

from movepages.errors import NodeSetError

if TYPE_CHECKING:
    from typing import Self

_HIGHEST_NODE = 1 << 16
_DEVICE_WORDS = ("netdev", "ip", "file", "block", "pci")
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")


class NodeSet(Set[int]):
    """An immutable, ordered set of node numbers.

    >>> print(NodeSet.parse("0-2,5"))
    0-2,5
    >>> NodeSet([3, 1]) | {2}
    NodeSet('1-3')
    """

    __slots__ = ("_bits",)
    _bits: int

    def __init__(self, nodes: Iterable[int] = ()) -> None:
        """Take node numbers in any order. Raises NodeSetError for one below 0 or above 65535."""
        bits = 0
        for number in nodes:
            node = operator.index(number)  # NumPy's integers would overflow below
            if not 0 <= node < _HIGHEST_NODE:
                raise NodeSetError(f"{node} is not a node number", text=str(node))
            bits |= 1 << node
        object.__setattr__(self, "_bits", bits)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        allowed: Set[int] | None = None,
        existing: Set[int] | None = None,
    ) -> Self:
        """Read what numactl's users write (libnuma's numa_parse_nodestring).

        `0,2` `0-3` `all` `!1` (all but) `+0-1` (the first and second of the cpuset) `!+0`; numbers
        may be decimal, 0x.. or 0.. octal. An empty text is the empty set, as in the kernel's files.

        `allowed` is what `all`, `!` and `+` refer to (the cpuset's nodes), `existing` the nodes of
        the machine; a node outside either is refused. Raises NodeSetError.
        """
        invert, relative, body = _split_signs(text)
        words = [word.strip() for word in body.split(",")] if body or invert or relative else []
        base = allowed if allowed is not None else existing
        if (invert or relative or "all" in words) and base is None:
            raise NodeSetError(f"{text!r} needs the machine's nodes to mean something", text=text)
        nodes = cls(_numbers([word for word in words if word != "all"], text))
        if relative:
            nodes = cls(_relative(nodes, sorted(base or ()), text))
        if "all" in words:
            nodes = cls(nodes | (base or set()))
        _refuse_strangers(nodes, existing, text, "does not exist on this machine")
        if invert:
            return cls(set(base or ()) - nodes)
        _refuse_strangers(nodes, allowed, text, "lies outside the allowed nodes")
        return nodes

    @classmethod
    def from_bits(cls, bits: int) -> Self:
        """Make a set from a Python int whose bit N stands for node N. Raises NodeSetError."""
        if bits < 0 or bits.bit_length() > _HIGHEST_NODE:
            raise NodeSetError("bits of a node set stand for nodes 0 to 65535", text=hex(bits))
        made = cls()
        object.__setattr__(made, "_bits", bits)
        return made

    @classmethod
    def from_words(cls, words: Iterable[int], word_bits: int = 64) -> Self:
        """Make a set from the kernel's bit mask, lowest word first."""
        bits = 0
        for index, word in enumerate(words):
            bits |= int(word) << (index * word_bits)
        return cls.from_bits(bits)

    def to_words(self, word_bits: int = 64, minimum: int = 1) -> tuple[int, ...]:
        """Return the kernel's bit mask, lowest word first, of at least `minimum` words."""
        count = max(minimum, -(-self._bits.bit_length() // word_bits))
        mask = (1 << word_bits) - 1
        return tuple(self._bits >> (index * word_bits) & mask for index in range(count))

    @staticmethod
    def maxnode(words: tuple[int, ...], word_bits: int = 64) -> int:
        """Return `maxnode` for a mask: one more than its bits, for the kernel uses maxnode - 1."""
        return len(words) * word_bits + 1

    @property
    def bits(self) -> int:
        """The set as a Python int whose bit N stands for node N."""
        return self._bits

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: the set is immutable."""
        raise AttributeError(f"NodeSet is immutable; cannot set {name}")

    def __contains__(self, node: object) -> bool:
        """Tell whether a node is in the set."""
        try:
            number = operator.index(node)  # type: ignore[arg-type]  # what is no integer is no node
        except TypeError:
            return False
        return number >= 0 and bool(self._bits >> number & 1)

    def __iter__(self) -> Iterator[int]:
        """Go through the nodes in rising order."""
        bits = self._bits
        while bits:
            lowest = bits & -bits
            yield lowest.bit_length() - 1
            bits ^= lowest

    def __len__(self) -> int:
        """Count the nodes."""
        return self._bits.bit_count()

    def __hash__(self) -> int:
        """Hash as a frozenset of the same nodes does, since the two can be equal."""
        return self._hash()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it by its bits, for it refuses to be filled in afterwards."""
        return type(self).from_bits, (self._bits,)

    def __str__(self) -> str:
        """Write it as the kernel does: `0-2,5`, or nothing for the empty set."""
        return ",".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self._ranges()
        )

    def __repr__(self) -> str:
        """Write it as an expression."""
        return f"NodeSet({str(self)!r})"

    def _ranges(self) -> Iterator[tuple[int, int]]:
        first = last = -2
        for node in self:
            if node == last + 1:
                last = node
                continue
            if first >= 0:
                yield first, last
            first = last = node
        if first >= 0:
            yield first, last


def _split_signs(text: str) -> tuple[bool, bool, str]:
    body = text.strip()
    invert = body.startswith("!")
    body = body.removeprefix("!")
    relative = body.startswith("+")
    return invert, relative, body.removeprefix("+")


def _numbers(words: Iterable[str], text: str) -> Iterator[int]:
    for word in words:
        _refuse_words(word, text)
        first_text, dash, last_text = word.partition("-")
        first = _number(first_text, text)
        last = _number(last_text, text) if dash else first
        if last < first:
            raise NodeSetError(f"range {word!r} in {text!r} is reversed", text=text)
        yield from range(first, last + 1)


def _refuse_words(word: str, text: str) -> None:
    if word == "same":
        raise NodeSetError(
            "'same' (numactl's previous mask) is not supported; name the nodes", text=text
        )
    device, colon, _ = word.partition(":")
    if colon and device in _DEVICE_WORDS:
        raise NodeSetError(
            f"'{device}:' (the node of a device) is not supported; name the node", text=text
        )


def _number(word: str, text: str) -> int:
    digits = word.strip().lower()
    octal = digits.startswith("0") and not digits.startswith("0x")  # base 0 as in C
    try:
        number = int(digits, 8 if octal else 0) if _NUMBER.fullmatch(digits) else -1
    except ValueError:
        number = -1
    if not 0 <= number < _HIGHEST_NODE:
        raise NodeSetError(
            f"{word!r} in {text!r} is not a node; write nodes like 0-3, 0,2, all, !1 or +0",
            text=text,
        )
    return number


def _relative(positions: NodeSet, base: list[int], text: str) -> Iterator[int]:
    for position in positions:
        if position >= len(base):
            raise NodeSetError(
                f"{text!r}: there is no +{position}, only {len(base)} nodes are allowed", text=text
            )
        yield base[position]


def _refuse_strangers(nodes: NodeSet, known: Set[int] | None, text: str, problem: str) -> None:
    if known is None or nodes <= known:
        return
    stranger = min(nodes - known)
    raise NodeSetError(
        f"node {stranger} in {text!r} {problem} ({NodeSet(known) or 'none'})", text=text
    )
