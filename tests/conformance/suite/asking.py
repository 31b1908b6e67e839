"""How scenarios ask: a call and what the kernel says of the pages afterwards, as one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from movepages.abi import MoveFlag
from suite.outcome import Step
from suite.protocol import addresses_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from suite.protocol import Process

MOVE, MOVE_ALL = int(MoveFlag.MOVE), int(MoveFlag.MOVE_ALL)
STRICT = int(MoveFlag.STRICT)


def touched(process: Process, pages: int, **how: Any) -> list[int]:
    """Map pages and write to them; return their addresses."""
    address = process.mmap(pages, **how)
    process.write(address, pages)
    return addresses_of(address, pages)


def move(
    process: Process,
    label: str,
    addresses: Sequence[int],
    nodes: int | Sequence[int],
    flags: int = MOVE,
    *,
    pid: int = 0,
    **how: Any,
) -> Step:
    """Move pages, then query them."""
    call = process.move_pages(pid, addresses, nodes, flags, **how)
    after = process.move_pages(pid, addresses, None, 0)
    return Step(label, call.ret, call.status, after.status)


def query(
    process: Process, label: str, addresses: Sequence[int], *, pid: int = 0, **how: Any
) -> Step:
    """Query pages."""
    call = process.move_pages(pid, addresses, None, how.pop("flags", 0), **how)
    return Step(label, call.ret, call.status)


def at(process: Process, label: str, addresses: Sequence[int]) -> Step:
    """Say where pages are, of a query that has to work."""
    return Step(label, where=process.move_pages(0, addresses, None, 0).status)
