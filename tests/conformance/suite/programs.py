"""Random NUMA programs: the same seed is the same program, on every kernel.

A program maps memory of several kinds, writes, reads, forks, unmaps, protects, locks and pins, and
now and then queries or moves a list of addresses, with repeats, holes, absent nodes and arrays that
end early. It knows what it may touch; what the kernel answers never decides how it goes on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from suite.asking import MOVE, MOVE_ALL
from suite.outcome import Step
from suite.protocol import ABSENT_NODE, HUGE, PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from suite.protocol import Process, World

RECORDED_PROGRAMS = 500
ACTIONS = 11
MAX_PROCESSES = 3
MAX_PAGES = 24
MAX_ENTRIES = 60
_FLAGS = (MOVE, MOVE, MOVE, MOVE_ALL, MOVE_ALL, 0)
_NODES = (0, 1, 2, 3)


@dataclass(slots=True)
class Area:
    """A mapping as the program remembers it: what each of its pages allows, None for a hole."""

    start: int
    kind: str
    allows: list[str | None]
    locked: bool = False
    pinned: bool = False

    def address(self, page: int) -> int:
        """Return the address of a page."""
        return self.start + page * PAGE


@dataclass(slots=True)
class Actor:
    """A process, and what it has mapped."""

    process: Process
    areas: list[Area] = field(default_factory=list)
    pins: int = 0


class Program:
    """One run of a random program in a world."""

    def __init__(self, seed: int, world: World, root: Process) -> None:
        """`root` is a process with nothing mapped."""
        self._random = Random(seed)  # noqa: S311 - repeatable is what it has to be
        self._world = world
        self._actors = [Actor(root)]
        self._tag = 0
        self._forked = False
        self.has_pinned = False
        """Whether it has pinned a page so far."""
        self._steps: list[Step] = []

    def run(self) -> list[str]:
        """Run it to its end; return the answers, a line each."""
        for kind in self._random.choices(("private", "shared", "private", "huge"), k=2):
            self._map(self._actors[0], kind)
        actions: list[tuple[Callable[[Actor], None], int]] = [
            (self._map_any, 2),
            (self._write, 5),
            (self._read, 3),
            (self._fork, 2),
            (self._exit, 1),
            (self._unmap, 2),
            (self._protect, 2),
            (self._discard, 1),
            (self._lock, 1),
            (self._pin, 1),
            (self._query, 1),
            (self._move, 6),
        ]
        todo = self._random.choices(*zip(*actions, strict=True), k=ACTIONS)  # type: ignore[misc]
        for action in todo:
            action(self._random.choice(self._actors))
        self._move(self._actors[0])
        for actor in self._actors:
            self._inspect(actor)
        for actor in self._actors[1:]:
            actor.process.exit()
        return [str(step) for step in self._steps]

    # -- memory -------------------------------------------------------------------------------

    def _map_any(self, actor: Actor) -> None:
        kinds = ("private", "private", "shared", "shared", "huge")
        self._map(actor, self._random.choice(kinds))

    def _map(self, actor: Actor, kind: str) -> None:
        process = actor.process
        if kind == "huge":
            start = process.mmap(HUGE)
            process.madvise(start, HUGE, "hugepage")
            process.write(start)
            actor.areas.append(Area(start, kind, ["rw"] * HUGE))
            return
        pages = self._random.randint(1, MAX_PAGES)
        start = process.mmap(pages, shared=kind != "private")
        actor.areas.append(Area(start, kind, ["rw"] * pages))
        self._touch(actor.areas[-1], process, 0, self._random.randint(0, pages))

    def _touch(self, area: Area, process: Process, first: int, count: int) -> None:
        if count:
            process.poke(area.address(first), range(self._tag + 1, self._tag + 1 + count))
            self._tag += count

    def _write(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw"):
            if self._stays_whole(area):
                self._touch(area, actor.process, first, count)

    def _read(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw", "r"):
            actor.process.read(area.address(first), count)

    def _unmap(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw", "r", ""):
            if area.kind == "huge":
                continue
            actor.process.munmap(area.address(first), count)
            area.allows[first : first + count] = [None] * count

    def _protect(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw", "r", ""):
            if area.kind == "huge" or area.locked:
                continue
            allowed = self._random.choice(("", "r", "rw"))
            actor.process.mprotect(area.address(first), count, allowed)
            area.allows[first : first + count] = [allowed] * count

    def _discard(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw", "r"):
            if area.kind != "huge" and not area.locked:  # locked memory may not be discarded
                actor.process.madvise(area.address(first), count, "dontneed")

    def _lock(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw"):
            if area.kind != "huge":
                actor.process.mlock(area.address(first), count)
                area.locked = True

    def _pin(self, actor: Actor) -> None:
        for area, first, count in self._some_pages(actor, "rw"):
            if self._stays_whole(area):
                actor.process.poke(area.address(first), [self._tag])
                actor.process.pin(area.address(first), 1)
                area.pinned = self.has_pinned = True
                del count

    def _stays_whole(self, area: Area) -> bool:
        """Tell whether a write leaves a huge page in one piece, as worlds that cannot split need.

        One that somebody else maps, or may have pinned since a fork, is mapped in pieces instead.
        """
        whole = len(self._actors) == 1 and not (area.pinned and self._forked)
        return area.kind != "huge" or whole

    def _some_pages(self, actor: Actor, *allowed: str) -> list[tuple[Area, int, int]]:
        """Choose a run of pages that allow the same or one of several; none if there are none."""
        if not actor.areas:
            return []
        area = self._random.choice(actor.areas)
        first = self._random.randrange(len(area.allows))
        wanted = self._random.randint(1, MAX_PAGES)
        count = 0
        while first + count < len(area.allows) and count < wanted:
            if area.allows[first + count] not in allowed:
                break
            count += 1
        return [(area, first, count)] if count else []

    # -- processes ----------------------------------------------------------------------------

    def _fork(self, actor: Actor) -> None:
        if len(self._actors) == MAX_PROCESSES:
            return
        self._forked = True
        areas = [Area(a.start, a.kind, list(a.allows)) for a in actor.areas]
        self._actors.append(Actor(actor.process.fork(), areas))

    def _exit(self, actor: Actor) -> None:
        if actor is self._actors[0]:
            return
        actor.process.exit()
        self._actors.remove(actor)

    # -- calls --------------------------------------------------------------------------------

    def _query(self, actor: Actor) -> None:
        target = self._random.choice(self._actors)
        addresses = self._addresses(target)
        ends = self._ends(len(addresses), ("pages_readable", "status_writable"))
        pid = 0 if target is actor else target.process.pid
        call = actor.process.move_pages(pid, addresses, None, 0, **ends)
        self._steps.append(Step("query", call.ret, call.status))

    def _move(self, actor: Actor) -> None:
        target = actor if self._random.random() < 0.7 else self._random.choice(self._actors)
        addresses = self._addresses(target)
        nodes = self._nodes(len(addresses))
        ends = self._ends(len(addresses), ("pages_readable", "nodes_readable", "status_writable"))
        pid = 0 if target is actor else target.process.pid
        flags = self._random.choice(_FLAGS)
        call = actor.process.move_pages(pid, addresses, nodes, flags, **ends)
        self._steps.append(Step(f"move, flags {flags}", call.ret, call.status))

    def _addresses(self, target: Actor) -> list[int]:
        """Choose addresses: runs of pages of one area, repeats, and places next to them."""
        addresses: list[int] = []
        wanted = self._random.randint(1, MAX_ENTRIES)
        while len(addresses) < wanted and target.areas:
            area = self._random.choice(target.areas)
            run = 4 if area.kind == "huge" else self._random.randint(1, 20)
            first = self._random.randint(-1, len(area.allows))
            step = self._random.choice((1, 1, 1, -1, 3))
            places = [first + step * number for number in range(run)]
            inside = [place for place in places if -1 <= place <= len(area.allows)]
            addresses += [area.address(place) + self._random.choice((0, 0, 9)) for place in inside]
            if self._random.random() < 0.3:
                addresses.append(self._random.choice(addresses))
        return addresses[:wanted]

    def _nodes(self, count: int) -> list[int]:
        """Choose nodes: one, one for each run, or any; sometimes one that is not there."""
        shape = self._random.randrange(3)
        if shape == 0:
            nodes = [self._random.choice(_NODES)] * count
        elif shape == 1:
            nodes = [self._random.choice(_NODES) for _ in range(count)]
        else:
            turns = [self._random.choice(_NODES) for _ in range(count // 8 + 1)]
            nodes = [turns[number // 8] for number in range(count)]
        if count and self._random.random() < 0.1:
            nodes[self._random.randrange(count)] = self._random.choice((ABSENT_NODE, -1, 5000))
        return nodes

    def _ends(self, count: int, names: tuple[str, ...]) -> dict[str, Any]:
        """Let an array end early, now and then."""
        if not count or self._random.random() > 0.2:
            return {}
        return {self._random.choice(names): self._random.randrange(count)}

    def _inspect(self, actor: Actor) -> None:
        """Say at the end where the pages of a process are, and what is in them."""
        pages = [
            (area.address(page), area.allows[page])
            for area in actor.areas
            for page in range(0, len(area.allows), 101 if area.kind == "huge" else 1)
        ]
        call = actor.process.move_pages(0, [address for address, _ in pages], None, 0)
        there = [
            address
            for (address, allowed), status in zip(pages, call.status, strict=True)
            if status >= 0 and allowed
        ]
        tags = actor.process.peek(there)
        self._steps.append(Step("at the end", call.ret, call.status, says=str(tags)))


def digest(lines: list[str]) -> str:
    """Return what stands for the answers in a recording: four digits for each."""
    return " ".join(hashlib.sha256(line.encode()).hexdigest()[:4] for line in lines)
