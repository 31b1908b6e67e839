"""Tells which rows of the decision table a call met, from the world before it and its answer."""

from __future__ import annotations

from errno import E2BIG, EACCES, EBUSY, EFAULT, ENODEV, ENOENT, ENOMEM, EPERM, ESRCH
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle import Answer, Call, Page, Process, World

MOVE_ALL = 4
ABSURD = 1 << 32


class Seen:
    """A call as it looks before it is made: for each entry the page there, and what it is."""

    def __init__(self, world: World, call: Call) -> None:
        """Look at every entry."""
        self.call = call
        self.caller = world.processes[call.caller]
        self.task = world.processes.get(call.pid) if call.pid else self.caller
        self.nodes = call.nodes
        self.pages: list[Page | None] = []
        self.traits: list[set[str]] = []
        self.online = {node.id for node in world.nodes.values() if node.online}
        self.with_memory = {node.id for node in world.nodes.values() if node.has_memory}
        self.free = {node.id: node.free for node in world.nodes.values()}
        if self.task is None or self.task.areas is None:
            return
        process = world.processes[self.task.memory_of]
        for i, address in enumerate(call.pages):
            page = world.page_at(process, address)
            node = call.nodes[i] if call.nodes is not None and i < len(call.nodes) else None
            self.pages.append(page)
            self.traits.append(set(_traits(world, process, address, page, node)))

    def where(self, *wanted: str) -> list[int]:
        """Return the entries that have all of some traits."""
        return [i for i, traits in enumerate(self.traits) if traits.issuperset(wanted)]

    def all_are(self, *wanted: str) -> bool:
        """Tell whether there are entries, and all of them have some traits."""
        return bool(self.traits) and len(self.where(*wanted)) == self.call.nr_pages

    def row(self, *pattern: str) -> list[int]:
        """Return where entries in a row have one trait each, and the same target."""
        count = len(pattern)
        return [
            i
            for i in range(len(self.traits) - count + 1)
            if all(trait in self.traits[i + k] for k, trait in enumerate(pattern))
            and (self.nodes is None or len(set(self.nodes[i : i + count])) == 1)
        ]

    def mentions(self, i: int, *offsets: int) -> bool:
        """Tell whether entries from i on name pages by these numbers, all for the first time."""
        if i + len(offsets) > len(self.pages):
            return False
        pages = self.pages[i : i + len(offsets)]
        named: dict[int, Page | None] = {}
        for offset, page in zip(offsets, pages, strict=True):
            if named.setdefault(offset, page) is not page:
                return False
        if len(set(map(id, named.values()))) != len(named):
            return False
        return not any(page is earlier for page in pages for earlier in self.pages[:i])


def _traits(
    world: World, process: Process, address: int, page: Page | None, node: int | None
) -> Iterator[str]:
    area = world.find_vma(process, address)
    if address % world.page_size:
        yield "unaligned"
    if area is None:
        yield "above"
        return
    if address < area.start:
        yield "hole"
        return
    if page is None:
        yield (
            "device" if area.device else process.absent.get(address // world.page_size, "untouched")
        )
        return
    if page.reserved:
        yield "zero"
        return
    yield "page"
    yield page.backing
    if area.prot_none:
        yield "prot none"
    yield from _traits_of_page(world, process, address, page)
    if node is None:
        return
    there = page.node == node
    yield "there" if there else "elsewhere"
    can_move = page.on_lru and not page.pins and page.backing not in ("REFUSES", "NO_WRITEPAGE")
    if not there and can_move and len(page.mappings) == 1 and not page.dirty:
        yield "ok"


def _traits_of_page(world: World, process: Process, address: int, page: Page) -> Iterator[str]:
    shared = len(page.mappings) > 1
    yield "shared" if shared else "alone"
    if shared and page.size == 1 and len({pid for pid, _ in page.mappings}) == 1:
        yield "twice in one process"
    if not page.on_lru:
        yield "off LRU"
    if page.pins and page.on_lru:
        yield "pinned"
    if page.dirty:
        yield "dirty"
    if page.locked:
        yield "locked"
    if world.is_mlocked(page):
        yield "mlocked"
    if page.size > 1:
        yield "hugetlb" if page.hugetlb else "THP"
        aligned = address // world.page_size * world.page_size
        if (process.memory_of, aligned) not in page.mappings:
            yield "tail"


def rows_met(seen: Seen, answer: Answer) -> set[str]:
    """Return the texts of the rows that a call met."""
    return {*_arguments(seen, answer), *_nodes(seen, answer), *_pages(seen, answer)}


def _arguments(  # noqa: C901 - one branch for each row
    seen: Seen, answer: Answer
) -> Iterator[str]:
    call, ret, task = seen.call, answer.ret, seen.task
    if call.flags & ~6:
        yield "flags with other bits"
        if task is None:
            yield "bad flags and bogus pid"
        return
    if call.flags & MOVE_ALL and ret == -EPERM and "SYS_NICE" not in seen.caller.capabilities:
        yield "MOVE_ALL, no CAP_SYS_NICE"
        return
    if ret == -ESRCH:
        yield "pid unknown or negative"
        return
    if task is not None and task.areas is None:
        privileged = "SYS_NICE" in seen.caller.capabilities
        if call.pid != 2:
            yield "zombie"
        else:
            yield "kernel thread, privileged" if privileged else "kernel thread, not privileged"
        return
    if ret == -EPERM and task is not None and task.uid != seen.caller.uid:
        yield "other user's process"
    if task is not None and task.uid == seen.caller.uid and not task.dumpable and task.uid:
        yield "same uid, target not dumpable"
    if call.nr_pages > ABSURD and ret in (-E2BIG, -ENOMEM, -EFAULT):
        yield "nr_pages absurd"
    if not call.nr_pages and ret in (0, -ENOENT):
        yield f"nr_pages 0, nodes {'NULL' if call.nodes is None else 'given'}"
    if call.flags == 0 and call.nodes and answer.status:
        yield "flags 0"
    yield from _ending_arrays(seen, answer)


def _ending_arrays(seen: Seen, answer: Answer) -> Iterator[str]:
    call = seen.call
    if answer.ret != -EFAULT or call.nr_pages > ABSURD:
        return
    named = call.nr_pages if call.nodes is None else len(call.nodes)
    ends = {
        "pages unreadable at k": len(call.pages),
        "nodes unreadable at k": named,
        "status not writable at k": call.status_writable,
    }
    yield from (
        row for row, end in ends.items() if end < call.nr_pages and end == min(ends.values())
    )


def _nodes(seen: Seen, answer: Answer) -> Iterator[str]:
    if answer.ret == -ENODEV:
        bad = next(n for n in seen.nodes if n not in seen.online or n not in seen.with_memory)
        if not 0 <= bad < 1024:
            yield "node negative / >= MAX_NUMNODES"
        elif bad in seen.online:
            yield "node online, no memory"
        else:
            yield "node offline at index k"
            if seen.task is not None and bad not in seen.task.cpuset:
                yield "order offline vs cpuset"
            if seen.row("pinned") and seen.nodes.index(bad) > seen.row("pinned")[0]:
                yield "[pinned->1, ok->offline node]"
    if answer.ret == -EACCES:
        yield "node outside target's cpuset"
    if answer.status and seen.nodes and set(seen.nodes) - seen.with_memory and answer.ret >= 0:
        yield "node online, no memory"


ONE_TRAIT = {
    "above the last VMA, kernel address": "above",
    "hole below some VMA": "hole",
    "swapped out": "swapped",
    "file page in cache but not mapped": "cached",
    "past EOF": "past EOF",
    "page under migration by someone else": "migrating",
    "never-touched anon": "untouched",
    "MADV_DONTNEED": "untouched",
    "zero page": "zero",
    "VM_PFNMAP/VM_IO": "device",
}
"""Rows for which one entry with one trait will do, if its status was stored."""


def _pages(seen: Seen, answer: Answer) -> Iterator[str]:
    stored = [i for i in answer.status if i < len(seen.traits)]
    query = seen.call.nodes is None
    for row, trait in ONE_TRAIT.items():
        if any(trait in seen.traits[i] for i in stored):
            yield f"{row}: query" if query and row in QUERIED else row
    if query:
        if any("page" in seen.traits[i] for i in stored):
            yield "query, page mapped"
        return
    yield from _statuses(seen, answer, stored)
    yield from _alone(seen, answer)
    yield from _lists(seen, answer)


QUERIED = ("zero page", "never-touched anon", "VM_PFNMAP/VM_IO")


def _statuses(  # noqa: C901, PLR0912 - one branch for each row
    seen: Seen, answer: Answer, stored: list[int]
) -> Iterator[str]:
    """Rows about one entry of a move, by its traits and its status."""
    move_all = bool(seen.call.flags & MOVE_ALL)
    for i in stored:
        traits, status = seen.traits[i], answer.status[i]
        moved = "elsewhere" in traits and status == seen.nodes[i]
        if "prot none" in traits and moved:
            yield "PROT_NONE but touched"
        if "unaligned" in traits and moved:
            yield "unaligned address"
        if "DEVICE" in traits:
            yield "vDSO page: MOVE_ALL" if move_all and status == -EBUSY else "vDSO page"
        if {"there", "shared"} <= traits:
            yield "shared, on target already"
        if "shared" in traits and "KSM" not in traits:
            if status == -EACCES:
                yield "shared, elsewhere, MOVE"
            if move_all and moved:
                yield "shared, MOVE_ALL"
            if "twice in one process" in traits and "elsewhere" in traits and not move_all:
                yield "memfd page mapped twice in one process, MOVE"
        if "KSM" in traits and "shared" in traits:
            if status == -EACCES:
                yield "KSM page MOVE"
            if moved:
                yield "KSM page MOVE_ALL"
        if "mlocked" in traits and "elsewhere" in traits and (moved or status == -EPERM):
            yield "mlocked"
        if "off LRU" in traits and "DEVICE" not in traits and status == -EBUSY:
            yield "page not on LRU"
        if {"ok", "ANON"} <= traits and moved:
            yield "private anon on node 0 to 1"
        if {"THP", "tail"} <= traits and moved:
            yield "THP, one tail address"
        if traits >= {"dirty", "NO_METHOD"} and moved:
            yield "dirty file page, no migrate hook, writepage ok"
        if "alone" in traits and moved and traits & {"SHMEM", "BUFFERS"}:
            yield "tmpfs, ext4 dirty shared, mapped once"
    if seen.where("there") and any("ok" in seen.traits[i] for i in stored):
        yield "already on target, with others"


def _alone(seen: Seen, answer: Answer) -> Iterator[str]:
    """Rows about calls in which all entries are of one kind."""
    nothing_moved = answer.ret == -ENOENT or answer.status
    for row, traits in {
        "never-touched anon: alone": ("untouched",),
        "zero page: alone": ("zero",),
        "already on target, alone": ("there",),
    }.items():
        if nothing_moved and seen.all_are(*traits):
            yield row
    refused = answer.ret == -ENOENT or -EACCES in answer.status.values()
    if refused and not seen.call.flags & MOVE_ALL and seen.all_are("shared", "elsewhere"):
        yield "shared, elsewhere, MOVE: alone"
    if answer.ret >= 0 and seen.all_are("pinned", "alone", "elsewhere"):
        yield "busy/pinned page alone"
    for row, traits in REFUSING.items():
        if answer.ret >= 0 and seen.where("elsewhere", "alone", *traits):
            yield row
    if answer.ret >= 0 or answer.ret == -ENOMEM:
        asked = {node: seen.nodes.count(node) for node in set(seen.nodes)}
        movable = {seen.nodes[i] for i in seen.where("ok")}
        if any(seen.free.get(node, 0) < asked[node] for node in movable & set(seen.free)):
            yield "target full, no swap"


REFUSING = {
    "dirty, no writepage": ("dirty", "NO_WRITEPAGE"),
    "dirty, writepage error": ("dirty", "WRITE_FAILS"),
    "a mapping that always refuses": ("REFUSES",),
}


def _lists(  # noqa: C901, PLR0912 - one branch for each row
    seen: Seen, answer: Answer
) -> Iterator[str]:
    """Rows about a few entries in a row."""
    if answer.ret < 0:
        return
    nodes = seen.nodes
    if seen.row("ok", "untouched", "zero", "hole", "ok"):
        yield "[touched, untouched, zero, hole, touched]"
    for i in seen.row("ok", "ok", "ok"):
        if seen.mentions(i, 0, 0, 0):
            yield "duplicate [p p p]"
    for i in seen.row("ok", "ok", "ok", "ok"):
        if seen.mentions(i, 0, 1, 0, 1):
            yield "[p q p q]"
    for i in range(len(seen.traits) - 1):
        if seen.mentions(i, 0, 0):
            if "ok" in seen.traits[i] and "there" in seen.traits[i + 1]:
                yield "conflicting [p->1, p->0], p on 0"
            if "there" in seen.traits[i] and "ok" in seen.traits[i + 1]:
                yield "conflicting [p->0, p->1], p on 0"
    if seen.row("pinned", "ok", "ok") and answer.ret >= 0:
        yield "[pinned, ok, ok]"
    if seen.row("pinned", "hole", "ok"):
        yield "[pinned, hole, ok]"
    for i in range(min(len(seen.traits), len(nodes)) - 3):
        kinds = [seen.traits[i + k] for k in range(4)]
        turns = nodes[i] == nodes[i + 2] != nodes[i + 1] == nodes[i + 3]
        if turns and "pinned" in kinds[2] and all("ok" in kinds[k] for k in (0, 1, 3)):
            yield "[ok->1, ok->0, pinned->1, ok->0]"
    if seen.row(*["pinned"] * 3, *["there"] * 17):
        yield "3 pinned then 17 already on target"
    if any(seen.mentions(i, 0, 0, 0, 0) for i in seen.row(*["THP"] * 4)):
        yield "THP [head, +1, +2, +3]"
    if any("elsewhere" in seen.traits[i] for i in seen.row("hugetlb", "hugetlb")):
        yield "hugetlb [head, tail]"
