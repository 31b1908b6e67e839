"""What a kernel answered, as values that can be compared, recorded and read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from movepages.abi import UNWRITTEN, Errno

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Call:
    """What move_pages returned, and the statuses; UNWRITTEN stands where none was written."""

    ret: int
    status: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a scenario and its answer; `where` are the statuses of a query afterwards."""

    label: str
    ret: int | None = None
    status: tuple[int, ...] | None = None
    where: tuple[int, ...] | None = None
    says: str | None = None

    def __str__(self) -> str:
        """Write it on a line: `label | ret | [statuses] | at [nodes] | what else it says`."""
        parts = [self.label]
        if self.ret is not None:
            parts.append(said(self.ret))
        if self.status is not None:
            parts.append(f"[{listed(self.status)}]")
        if self.where is not None:
            parts.append(f"at [{listed(self.where)}]")
        if self.says is not None:
            parts.append(self.says)
        return " | ".join(parts)


def said(code: int) -> str:
    """Write a status or a return value: a number, an errno by name, `~` for never written."""
    if code == UNWRITTEN:
        return "~"
    return str(code) if code >= 0 else f"-{Errno(-code).name}"


def listed(codes: Iterable[int]) -> str:
    """Write statuses in their order; `1x4` stands for four times 1."""
    runs = ((said(code), len(list(run))) for code, run in groupby(codes))
    return " ".join(text if count == 1 else f"{text}x{count}" for text, count in runs)
