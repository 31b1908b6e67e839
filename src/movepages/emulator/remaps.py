"""mremap(2): what is known of pages goes along to where the kernel puts them.

The kernel chooses the place, and nobody is told which one, or whether the call failed. So what is
mapped is noted before the call, and compared when the process is next looked at: what is mapped now
and was not before is the new place, or the room that the area has grown into.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from movepages.emulator.address_space import LiveAddressSpace
from movepages.linux import intervals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from movepages.emulator.machine import EmulatedMachine
    from movepages.emulator.mm import Mm
    from movepages.emulator.processes import LiveTask

    Pages = NDArray[np.int64]
    Mapped = tuple[NDArray[np.uint64], NDArray[np.uint64]]
    """Page numbers: starts and ends, rising, as apart as can be."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What a call asks for: that pages `start` to `end` become `pages` somewhere."""

    start: int
    end: int
    pages: int
    target: int | None
    """Where the caller wants them to be (MREMAP_FIXED)."""
    leaves: bool
    """Whether the old area stays, without its pages (MREMAP_DONTUNMAP)."""


@dataclass(frozen=True, slots=True, eq=False)
class Remap:
    """A call of a task that was let through."""

    tid: int
    wanted: Wanted
    mapped: Mapped
    """What was mapped before."""
    known: tuple[int, int] | None
    """One of the pages, and its page frame, where that may be seen."""

    def place(self, now: Mapped, frames_of: Callable[[Pages], Pages]) -> int | None:
        """Return where the pages begin now, or None where no sign of the call is to be seen."""
        wanted = self.wanted
        if wanted.target is not None:
            there = _holds(now, wanted.target, wanted.target + wanted.pages)
            return wanted.target if there and not self._has_failed(frames_of) else None
        new = intervals.join(*intervals.subtract(*now, self.mapped), 0)
        grown_to = wanted.start + wanted.pages
        if wanted.end < grown_to and _holds(new, wanted.end, grown_to):
            return wanted.start
        return self._among(new, frames_of)

    def _has_failed(self, frames_of: Callable[[Pages], Pages]) -> bool:
        """Tell whether a page is still where it was, as far as its frame may be seen."""
        if self.known is None:
            return False
        page, frame = self.known
        return int(frames_of(np.array([page]))[0]) == frame

    def _among(self, new: Mapped, frames_of: Callable[[Pages], Pages]) -> int | None:
        """Return where the pages begin in what is newly mapped."""
        runs = [(int(start), int(end)) for start, end in zip(*new, strict=True)]
        runs = [(start, end) for start, end in runs if end - start >= self.wanted.pages]
        if self.known is not None:
            page, frame = self.known
            for start, end in runs:
                found = np.flatnonzero(frames_of(np.arange(start, end)) == frame)
                if len(found):
                    return start + int(found[0]) - (page - self.wanted.start)
        if not runs:
            return None
        exact = [run for run in runs if run[1] - run[0] == self.wanted.pages]
        return (exact or runs)[-1][1] - self.wanted.pages  # a gap is filled from its end


def begin(machine: EmulatedMachine, task: LiveTask, mm: Mm, wanted: Wanted) -> None:
    """Note what is mapped where, before a call is let through."""
    machine.processes.materialise_own(task)
    LiveAddressSpace.of(machine, task, mm).settle(wanted.start, wanted.end)
    mapped = read_mapped(mm.directory, machine.page_shift)
    mm.remaps.append(Remap(task.tid, wanted, mapped, _a_frame(machine, mm, wanted)))


def finish(machine: EmulatedMachine, mm: Mm) -> None:
    """Carry along what is known of pages, for those calls that have left a trace."""
    now = read_mapped(mm.directory, machine.page_shift)
    for remap in tuple(mm.remaps):
        place = remap.place(now, partial(machine.frames_of, mm))
        if place is not None:
            mm.remaps.remove(remap)
            _carry(machine, mm, remap.wanted, place)


def _carry(machine: EmulatedMachine, mm: Mm, wanted: Wanted, place: int) -> None:
    """Take pages and policies along; what they have grown by has the policy of their end."""
    kept = min(wanted.end, wanted.start + wanted.pages)
    policies = mm.anonymous.policies
    pieces = policies.within(wanted.start, kept)
    at_end, _ = policies.at(kept - 1, kept)
    if place != wanted.start:
        for thing in mm.own.values():
            machine.forget_pages(thing, place, place + wanted.pages)
            thing.pages.move(wanted.start, kept, place)
            machine.forget_pages(thing, kept, wanted.end)
        if not wanted.leaves:
            policies.set(wanted.start, wanted.end, None)
    policies.set(place, place + kept - wanted.start, None)
    policies.set(place + kept - wanted.start, place + wanted.pages, at_end)
    for start, end, policy in pieces:
        policies.set(start - wanted.start + place, end - wanted.start + place, policy)


def _a_frame(machine: EmulatedMachine, mm: Mm, wanted: Wanted) -> tuple[int, int] | None:
    """Return a page of a range and its page frame, None where none may be seen."""
    placed = mm.anonymous.pages.placed(wanted.start, wanted.end)
    frames = machine.frames_of(mm, placed)
    found = np.flatnonzero(frames)
    return (int(placed[found[0]]), int(frames[found[0]])) if len(found) else None


def read_mapped(directory: Path, page_shift: int) -> Mapped:
    """Return what a task has mapped, given its directory in /proc. Raises ProcessLookupError."""
    try:
        text = (directory / "maps").read_bytes()
    except FileNotFoundError:
        raise ProcessLookupError from None
    ranges = [line.split(b" ", 1)[0].split(b"-") for line in text.splitlines()]
    bounds = np.array([(int(start, 16), int(end, 16)) for start, end in ranges], dtype=np.uint64)
    starts, ends = bounds.reshape(-1, 2).T >> np.uint64(page_shift)
    return intervals.join(starts, ends, 0)


def _holds(mapped: Mapped, start: int, end: int) -> bool:
    """Tell whether all pages of a range are mapped."""
    starts, ends = mapped
    index = int(np.searchsorted(starts, np.uint64(start), side="right")) - 1
    return index >= 0 and end <= int(ends[index])
