"""Transparent huge pages that are mapped page by page, and how a move splits them.

Who unmaps a part of a huge page, or gives a part other rights, has it mapped page by page from then
on; the host's kernel keeps it one folio, as the emulated one does. Its pages are known by their
frames (kpageflags); where these may not be seen, by having been mapped whole when last looked at.
In the overlay they are single pages that are GROUPED; the folio is named by the first of them.

The emulated kernel splits such a folio when it moves and some of its pages are mapped by nobody any
more; the host does not, so its pages are marked as SPLIT. Those full of zeroes are ZEROED: the zero
page, as long as nobody writes to them.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PageFlag
from movepages.emulator.overlay import (
    EXCLUSIVE,
    GROUPED,
    NOT_PLACED,
    SPLIT,
    ZEROED,
    count_pages,
    distinct,
)
from movepages.emulator.seen import Seen
from movepages.linux.kpageflags import has, read_flags, read_run
from movepages.linux.pagemap import present, read_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from movepages.emulator.capacity import Room
    from movepages.emulator.mm import Mm
    from movepages.emulator.objects import PageObject
    from movepages.emulator.overlay import Overlay
    from movepages.emulator.processes import Processes

    Handles = NDArray[np.int64]


_NOTHING_LOCKED = b"VmLck:\t       0 kB"
_AREA = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ")


@dataclass(frozen=True, slots=True, eq=False)
class LargeFolios:
    """Looks at huge pages of live processes: 2**order pages of 2**page_shift bytes each."""

    processes: Processes
    order: int
    page_shift: int

    @property
    def pages(self) -> int:
        """Pages of a huge page."""
        return 1 << self.order

    # -- which pages are of one -----------------------------------------------------------------

    def parts(self, overlay: Overlay, seen: Seen) -> NDArray[np.bool_]:
        """Tell which pages, none of a file, are of a huge page that is mapped page by page."""
        found = self._grouped(overlay, seen)
        frames = seen.frames
        aligned = np.flatnonzero(
            ~seen.huge & (frames != 0) & ((frames - seen.pages) % self.pages == 0)
        )
        if not len(aligned):
            return found
        pages, frames = seen.pages[aligned], frames[aligned]
        split = overlay.has(pages, SPLIT) & (overlay.frames(pages) == frames)
        heads = frames & -self.pages
        huge = self._begin_huge_pages(distinct(heads))
        if len(huge):
            found[aligned] = np.isin(heads, huge) & ~split
        return found

    def _grouped(self, overlay: Overlay, seen: Seen) -> NDArray[np.bool_]:
        """Tell which pages were of a huge page and are still, where frames may not be seen.

        One that was shared and is not any more has been copied, as far as can be told.
        """
        grouped: NDArray[np.bool_] = ~seen.huge & (seen.frames == 0)
        if grouped.any():
            grouped &= overlay.has(seen.pages, GROUPED)
            grouped &= ~seen.exclusive | overlay.has(seen.pages, EXCLUSIVE)
        return grouped

    def _begin_huge_pages(self, frames: Handles) -> Handles:
        """Return those frames that a huge page begins with; none where that is not shown."""
        root = self.processes.proc.parent
        try:
            flags = read_flags(frames.view(np.uint64), root)
        except PermissionError:
            return frames[:0]
        begins = has(flags, PageFlag.COMPOUND_HEAD) & has(flags, PageFlag.THP)
        whole = [
            bool(has(read_run(head + 1, self.pages - 1, root), PageFlag.COMPOUND_TAIL).all())
            for head in frames[begins].tolist()
        ]
        return frames[begins][np.array(whole, dtype=np.bool_)]

    def look(self, mm: Mm, page: int, frame: int) -> Seen:
        """Return what an address space has mapped of the huge page that a page of it is of."""
        block = page & -self.pages
        seen = self._block(mm, block)
        if frame:
            return seen.at(seen.frames - seen.pages == frame - page)
        return seen.at(self._grouped(mm.anonymous.pages, seen))

    def _block(self, mm: Mm, block: int) -> Seen:
        """Return the present pages of an aligned block of an address space."""
        entries = read_entries(mm.pagemap, block, np.zeros(self.pages, dtype=np.uint64))
        there = np.flatnonzero(present(entries))
        return Seen(there + block, entries[there], np.zeros(len(there), dtype=np.bool_))

    def zeroes(self, mm: Mm, seen: Seen, parts: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which pages that are no parts have become the zero page, and still are.

        Marks of what pages are no more are taken off them.
        """
        overlay, pages = mm.anonymous.pages, seen.pages
        zero = np.zeros(len(pages), dtype=np.bool_)
        marked = ~parts & overlay.has(pages, GROUPED | SPLIT | ZEROED)
        if not marked.any():
            return zero
        overlay.unmark(pages[marked], GROUPED)
        overlay.unmark(pages[marked & (overlay.frames(pages) != seen.frames)], SPLIT | ZEROED)
        at = np.flatnonzero(marked & overlay.has(pages, ZEROED))
        if not len(at):
            return zero
        at = at[np.argsort(pages[at], kind="stable")]
        zero[at] = self.are_zero(mm, pages[at])
        overlay.unmark(pages[at[~zero[at]]], ZEROED)
        return zero

    def gather(
        self, overlay: Overlay, seen: Seen, room: Room, place: Callable[[Handles], None]
    ) -> int:
        """Note what is mapped of a huge page; return the first of its pages, which names it.

        One that is new is placed by `place`, as a folio at that page.
        """
        block, first = seen.pages[:1] & -self.pages, seen.pages[:1]
        if overlay.orders(block)[0] == self.order:
            overlay.split(block, self.order)
        known = self.known(overlay, int(first[0]))
        gone = known[~np.isin(known, seen.pages)]
        known = known[np.isin(known, seen.pages)]
        self.unplace(overlay, gone, room)
        overlay.unmark(gone, GROUPED)
        if not len(known):
            known = first
            place(first)
            room.release(count_alone(overlay.nodes(first).repeat(self.pages - 1)))
        node = overlay.nodes(known[:1])
        fresh = seen.pages[overlay.nodes(seen.pages) == NOT_PLACED]
        if node[0] != NOT_PLACED:
            room.charge(count_alone(node.repeat(len(fresh))))
            overlay.set_nodes(seen.pages, node.repeat(len(seen.pages)))
        none = np.zeros(len(seen.pages), dtype=np.int64)
        overlay.observe(seen.pages, seen.frames, none, seen.exclusive)
        overlay.unmark(seen.pages, SPLIT | ZEROED)
        overlay.mark(seen.pages, GROUPED)
        return int(first[0])

    def unplace(self, overlay: Overlay, pages: Handles, room: Room) -> None:
        """Take the nodes of pages from them, and give up the room that they had."""
        room.release(overlay.replace(pages))
        overlay.set_nodes(pages, np.full(len(pages), NOT_PLACED))

    # -- folios, by the first page known of them ------------------------------------------------

    def known(self, overlay: Overlay, page: int) -> Handles:
        """Return the pages that are known of the folio that is named by a page."""
        block = (page & -self.pages) + np.arange(self.pages)
        there = overlay.has(block, GROUPED) & (overlay.nodes(block) != NOT_PLACED)
        known: Handles = block[there]
        return known

    def is_shared(self, thing: PageObject, page: int) -> bool:
        """Tell whether a huge page is taken for shared (folio_likely_mapped_shared)."""
        maps = list(self._maps(self._mm_of(thing), thing, page))
        count = sum(len(seen.pages) for _, seen in maps)
        if count > self.pages or len(maps) == 1:
            return count > self.pages or not maps[0][1].exclusive.all()
        firsts = sum(bool((seen.pages % self.pages == 0).any()) for _, seen in maps)
        return firsts > 1

    def is_partially_mapped(self, thing: PageObject, page: int) -> bool:
        """Tell whether nobody maps some page of a folio any more."""
        maps = self._maps(self._mm_of(thing), thing, page)
        mapped = np.concatenate([seen.pages % self.pages for _, seen in maps])
        return len(distinct(mapped)) < self.pages

    def split(self, thing: PageObject, page: int) -> Iterator[tuple[Overlay, Handles, Handles]]:
        """Split a folio, for all who map it: go through their overlays, own first.

        For each: the pages that stay, and those that give way to the zero page, without node now.
        """
        mm = self._mm_of(thing)
        maps = list(self._maps(mm, thing, page))
        zeroes = np.zeros(self.pages, dtype=np.bool_)
        for other, seen in maps:
            zeroes[seen.pages % self.pages] = self.are_zero(other, seen.pages)
        for other, seen in maps:
            overlay = other.anonymous.pages
            block = np.array([page & -self.pages])
            if overlay.orders(block)[0] == self.order:
                overlay.split(block, self.order)
            placed = seen.pages[overlay.nodes(seen.pages) != NOT_PLACED]
            overlay.unmark(placed, GROUPED)
            overlay.mark(placed, SPLIT)
            zero = zeroes[placed % self.pages] & ~self._are_locked(other, placed)
            overlay.mark(placed[zero], ZEROED)
            yield overlay, placed[~zero], placed[zero]

    def are_zero(self, mm: Mm, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages, rising, are full of zeroes: /proc/PID/mem neither pins nor copies them.

        What cannot be read is not.
        """
        zero = np.zeros(len(pages), dtype=np.bool_)
        size = 1 << self.page_shift
        apart = np.flatnonzero((np.diff(pages) != 1) | (pages[1:] % self.pages == 0)) + 1
        with suppress(OSError), (mm.directory / "mem").open("rb", 0) as memory:
            for at in np.split(np.arange(len(pages)), apart):
                data = os.pread(memory.fileno(), len(at) * size, int(pages[at[0]]) * size)
                words = np.frombuffer(data[: len(data) // size * size], dtype=np.uint64)
                zero[at[: len(data) // size]] = ~words.reshape(-1, size // 8).any(axis=1)
        return zero

    def _are_locked(self, mm: Mm, pages: Handles) -> NDArray[np.bool_]:
        """Tell which pages lie in areas that are locked in memory."""
        locked = np.zeros(len(pages), dtype=np.bool_)
        if _NOTHING_LOCKED in (mm.directory / "status").read_bytes():
            return locked
        start = end = 0
        for line in (mm.directory / "smaps").read_bytes().splitlines():
            if bounds := _AREA.match(line):
                start, end = (int(bound, 16) >> self.page_shift for bound in bounds.groups())
            elif line.startswith(b"VmFlags:") and b"lo" in line.split():
                locked |= (pages >= start) & (pages < end)
        return locked

    # -- inside ---------------------------------------------------------------------------------

    def _maps(self, mm: Mm, thing: PageObject, page: int) -> Iterator[tuple[Mm, Seen]]:
        """Go through the address spaces that map a folio, its own first, with what they map."""
        number = np.array([page])
        frame = int(thing.pages.frames(number)[0])
        by_page = bool(thing.pages.has(number, GROUPED)[0])
        yield mm, self.look(mm, page, frame) if by_page else self._block(mm, page & -self.pages)
        for other in mm.relatives:
            if other is mm or not frame:
                continue
            with suppress(FileNotFoundError, ProcessLookupError):
                seen = self.look(other, page, frame)
                if len(seen.pages):
                    yield other, seen

    def _mm_of(self, thing: PageObject) -> Mm:
        return next(mm for mm in self.processes.mms() if mm.anonymous is thing)


def count_alone(nodes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count single pages by node; those without one are nowhere."""
    nodes = nodes[nodes != NOT_PLACED]
    return count_pages(nodes, np.zeros(len(nodes), dtype=np.int64))
