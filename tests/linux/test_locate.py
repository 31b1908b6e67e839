"""Locating real pages: every way, on every kind of memory, against asking for page after page."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import tempfile

import numpy as np
import pytest
from guestkit.memory import Memory, unmap
from guestkit.pages import HUGE_BYTES, HUGE_PAGES, PAGE_BYTES

from movepages.errors import ArgumentError, CallError, NoSuchProcessError, NotPermittedError
from movepages.linux import locate as locate_module, page_calls, pagemap, presence
from movepages.linux.limits import read_thp_mode
from movepages.linux.locate import ALL_WAYS, Locator
from movepages.linux.maps import read_maps
from movepages.linux.nodes import read_block_nodes
from movepages.linux.reading import ROOT, living_program
from movepages.values import PageRuns

pytestmark = pytest.mark.host

WAYS = (
    ALL_WAYS,
    ("pfn", "scan", "query"),
    ("numa_maps", "scan", "query"),
    ("scan", "query"),
    ("numa_maps", "query"),
    ("pfn", "query"),
    ("query",),
)
KERNEL_OWN = ("[vdso", "[vvar", "[vsyscall")
OTHER_REQUEST = 0xC0606611  # _IOWR('f', 17, 96 bytes): no ioctl of pagemap


class Asking:
    """Asks the kernel about pages of a process, and counts them."""

    def __init__(self, pid):
        """Start with nothing asked."""
        self.pid, self.pages = pid, 0

    def __call__(self, addresses):
        """Return the status of each address."""
        self.pages += len(addresses)
        status = page_calls.unwritten(len(addresses))
        return page_calls.query_pages(self.pid, addresses, status).status


def locator(pid, ways=ALL_WAYS, root=ROOT, query=None):
    """Return a locator of a process that may use some ways only."""
    return Locator(pid, query or Asking(pid), PAGE_BYTES, root, ways)


def by_page(placement):
    """Return the node of each base page in a placement, by address; no page may be in it twice."""
    found = {}
    for start, pages, size, node in placement.runs():
        for address in range(start, start + pages * size, PAGE_BYTES):
            assert address not in found
            found[address] = node
    return found


def asked(pid, ranges=None):
    """Ask about every page of every mapping: the slow oracle."""
    if ranges is None:
        lines = read_maps(pid)
        ranges = [(m.start, m.end) for m in lines if not m.path.startswith(KERNEL_OWN)]
    found = {}
    for start, end in ranges:
        addresses = np.arange(start, end, PAGE_BYTES, dtype=np.uint64)
        status = Asking(pid)(addresses)
        there = status >= 0
        found.update(zip(addresses[there].tolist(), status[there].tolist(), strict=True))
    return found


def zoo(memory, *, with_thp, with_hugetlb):
    """Map memory of every kind; return the range of each kind by its name."""
    kinds = {
        "touched": memory.private(100).touch(),
        "untouched": memory.private(100),
        "sparse": memory.private(300),
        "zero": memory.private(40),
        "mixed": memory.private(60),
        "no access": memory.private(20).touch(),
        "shared": memory.shared(30).touch(),
    }
    for index in range(0, 300, 7):
        kinds["sparse"][index : index + 1 + index % 3].touch()
    assert not kinds["zero"].data.any()
    kinds["mixed"][:10].touch()
    assert not kinds["mixed"][10:20].data.any()
    kinds["mixed"][20:30].touch()
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(kinds["no access"].start), 20 * PAGE_BYTES, 0)
    memfd = os.memfd_create("zoo")
    os.ftruncate(memfd, 16 * PAGE_BYTES)
    kinds["memfd"] = memory.shared_file(memfd, 16).touch()
    kinds["memfd again"] = memory.shared_file(memfd, 16)
    kinds["memfd again"][:8].data.sum()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(8 * PAGE_BYTES)
        kinds["shm"] = memory.shared_file(file.fileno(), 8)
        kinds["shm"][2:5].touch()
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * 64)
        file.flush()
        kinds["file"] = memory.read_only_file(file.fileno(), 4)
        kinds["file"].data.sum()
    if with_thp:
        kinds["thp"] = memory.thp(3)
        kinds["thp"][: 2 * HUGE_PAGES].touch()
        kinds["huge zero"] = memory.thp(2)
        kinds["huge zero"].data[:, 0].sum()
        kinds["split thp"] = memory.thp(1).touch()
        unmap(kinds["split thp"][5:9])
    if with_hugetlb:
        kinds["hugetlb"] = memory.hugetlb(3)
        kinds["hugetlb"][: 2 * HUGE_PAGES].touch()
    return {name: pages.range for name, pages in kinds.items()}


@pytest.fixture
def process(request, memory, fork):
    """A quiet child with memory of every kind: its pid, and the ranges by kind."""
    with_hugetlb = os.geteuid() == 0
    if with_hugetlb:
        request.getfixturevalue("pools").set(0, 3)
    with_thp = read_thp_mode() in {"always", "madvise"}

    def body():
        yield zoo(memory, with_thp=with_thp, with_hugetlb=with_hugetlb)

    child = fork(body)
    return child.pid, child.step()


class Mortal:
    """A forked child with some memory, that ends when it is told to."""

    def __init__(self, pages):
        """Fork; the pages are the child's as well."""
        self.range, self.ended, self._reaped = pages.range, False, False
        self.pid = os.fork()
        if not self.pid:
            try:
                signal.pause()
            finally:
                os._exit(0)

    def end(self, *, reaped):
        """End it, and wait for it or leave a zombie."""
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        self.ended, self._reaped = True, reaped or self._reaped

    def look_in_every_way(self):
        """Locate all of its memory, and a part, in each way."""
        for ways in WAYS:
            for ranges in (None, [self.range]):
                locator(self.pid, ways).locate(ranges)


@pytest.fixture
def mortal(memory):
    """A child that can be ended at any moment."""
    pages = memory.private(200)
    for index in range(0, 200, 3):
        pages[index : index + 1].touch()
    child = Mortal(pages)
    yield child
    child.end(reaped=True)


@pytest.fixture
def blind(monkeypatch):
    """A kernel without PAGEMAP_SCAN: the request is one that it does not know."""
    monkeypatch.setattr(pagemap, "PAGEMAP_SCAN", OTHER_REQUEST)


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_every_way_finds_what_asking_finds(process, ways):
    """Page by page, all of a process's memory is where the kernel says when asked for each page."""
    pid, _ = process
    assert by_page(locator(pid, ways).locate()) == asked(pid)


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_every_way_finds_it_without_the_scan(process, ways):
    """A kernel without PAGEMAP_SCAN leads to the same pages."""
    pid, _ = process
    assert by_page(locator(pid, ways).locate()) == asked(pid)


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_every_way_finds_each_kind_of_memory(process, ways):
    """Range by range the pages are those that asking finds; a touched huge page counts whole."""
    pid, ranges = process
    for kind, (start, end) in ranges.items():
        assert by_page(locator(pid, ways).locate([(start, end)])) == asked(pid, [(start, end)]), (
            kind
        )


@pytest.mark.usefixtures("scanning", "thp")
def test_kinds_have_the_sizes_of_their_pages(process):
    """THP mapped whole and hugetlb count as pages of 2 MiB, all else as base pages."""
    pid, ranges = process
    huge = {kind for kind in ("thp", "hugetlb") if kind in ranges}
    for kind in ranges:
        placement = locator(pid).locate([ranges[kind]])
        sizes = set(placement.page_size_bytes.tolist())
        assert sizes <= ({HUGE_BYTES} if kind in huge else {PAGE_BYTES}), kind
    assert locator(pid).locate([ranges["thp"]]).pages.tolist() == [2]


def test_what_has_no_node_is_in_no_placement(process):
    """Untouched memory, the zero page and the huge zero page are nowhere, in every way."""
    pid, ranges = process
    for ways in WAYS:
        for kind in {"untouched", "zero", "huge zero"} & set(ranges):
            placement = locator(pid, ways).locate([ranges[kind]])
            assert (len(placement), placement.bytes_by_node) == (0, {})


def test_present_agrees_with_locate(process):
    """Where pages are is told for just the pages that are present, with the same sizes."""
    pid, ranges = process
    chosen = [ranges[kind] for kind in ranges if kind != "huge zero"]  # told apart since Linux 6.17
    runs = locator(pid).present(chosen)
    placement = locator(pid).locate(chosen)
    assert isinstance(runs, PageRuns)
    located = zip(placement.page_runs().addresses().tolist(), strict=True)
    assert [(address,) for address in runs.addresses().tolist()] == list(located)
    assert runs.total_bytes == placement.total_bytes


@pytest.mark.usefixtures("root")
def test_the_way_is_part_of_the_result(process):
    """The fastest way that is right is used, and named; several are joined."""
    pid, ranges = process
    touched = [ranges["touched"]]
    assert locator(pid).locate().way in {"numa_maps", "numa_maps+pfn"}
    assert locator(pid, ("pfn", "scan")).locate().way == "pfn"
    assert locator(pid).locate(touched).way == "pfn"
    assert locator(pid, ("scan",)).locate(touched).way == "scan"
    assert locator(pid, ("query",)).locate(touched).way == "query"
    assert locator(pid, ("numa_maps", "query")).locate().way.startswith("numa_maps")


@pytest.mark.usefixtures("root")
def test_the_frames_spare_the_asking(process):
    """With frames 64 pages at most are asked about beside the huge ones; else every present one."""
    pid, ranges = process
    touched = [ranges["touched"], ranges["sparse"]]
    frames, every = Asking(pid), Asking(pid)
    locator(pid, query=frames).locate(touched)
    assert frames.pages == 64
    found = locator(pid, ("scan",), query=every).locate(touched)
    assert every.pages == len(by_page(found))


@pytest.mark.usefixtures("root")
def test_numa_maps_spares_all_work(process):
    """Where each mapping is on one node, nothing is asked beyond the 64 pages of a check."""
    pid, _ = process
    asking = Asking(pid)
    placement = locator(pid, query=asking).locate()
    if placement.way == "numa_maps":
        assert asking.pages == 0
    assert asking.pages < len(by_page(placement)) / 10


def test_an_ordinary_user_finds_the_same(unprivileged):
    """Without the right to see frames every way leads to the same pages, none of them by frames."""

    def find():
        memory = Memory()
        child = os.fork()
        if not child:
            try:
                zoo(memory, with_thp=read_thp_mode() in {"always", "madvise"}, with_hugetlb=False)
                os.kill(os.getpid(), signal.SIGSTOP)
            finally:
                os._exit(0)
        try:
            os.waitid(os.P_PID, child, os.WSTOPPED)
            oracle = asked(child)
            placements = [locator(child, ways).locate() for ways in WAYS]
            return [(by_page(found) == oracle, found.way) for found in placements]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    outcome = unprivileged(find)
    assert [same for same, _ in outcome] == [True] * len(WAYS)
    ways_used = [way for _, way in outcome]
    assert not [way for way in ways_used if "pfn" in way]
    assert ways_used[1] == "scan"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("every", [2, 3, 10**9])
@pytest.mark.parametrize("links", [[], [0, 1], [1, 0]])
def test_blocks_that_tell_nothing_are_asked_about(process, block_root, every, links):
    """Pages in a block under two nodes or none are asked about, the others known by frames."""
    pid, _ = process
    _, blocks = read_block_nodes()
    root = block_root(
        {b: nodes if b % every else links for b, nodes in blocks.items()} | {10**5: [0, 1]}
    )
    found = locator(pid, ("pfn",), root).locate()
    assert by_page(found) == asked(pid)
    assert found.way == "pfn"


@pytest.mark.usefixtures("root")
def test_without_any_known_block_all_is_asked(process, block_root):
    """A machine whose blocks are under no node at all gives right answers still."""
    pid, ranges = process
    _, blocks = read_block_nodes()
    root = block_root(dict.fromkeys(blocks, ()) | {10**5: [0]})
    asking = Asking(pid)
    found = locator(pid, ("pfn",), root, asking).locate([ranges["touched"]])
    assert (len(by_page(found)), asking.pages, found.way) == (100, 100, "pfn")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("ranges_too", [False, True])
def test_a_machine_that_tells_wrong_is_found_out(process, block_root, ranges_too):
    """Where the blocks' nodes are not the kernel's, the frames are given up for the scan."""
    pid, ranges = process
    _, blocks = read_block_nodes()
    root = block_root({block: [node + 1 for node in nodes] for block, nodes in blocks.items()})
    where = list(ranges.values()) if ranges_too else None
    found = locator(pid, ("pfn", "scan"), root).locate(where)
    assert found.way == "scan"
    assert by_page(found) == asked(pid, where)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("there", [False, True])
def test_a_machine_without_memory_blocks_is_scanned(process, block_root, tmp_path, there):
    """A kernel that does not show memory blocks, or has none, leads to the scan."""
    pid, ranges = process
    if there:
        root = block_root({})
    else:
        root = tmp_path / "bare"
        (root / "sys").mkdir(parents=True)
        (root / "proc").symlink_to("/proc")
        (root / "sys/kernel").symlink_to("/sys/kernel")
    found = locator(pid, ("pfn", "scan"), root).locate([ranges["touched"]])
    assert (found.way, found.total_bytes) == ("scan", 100 * PAGE_BYTES)


@pytest.mark.parametrize(
    "ranges",
    [[(0x3000, 0x1000)], [(0x1000, 0x1000)], [(-1, 5)], [(0, 0)], [(0x1000, 0x2000), (9, 8)]],
)
@pytest.mark.parametrize("what", ["locate", "present"])
def test_ranges_that_are_none_are_refused(ranges, what):
    """Reversed, empty and negative ranges are named, and nothing is looked at."""
    with pytest.raises(ArgumentError, match="is empty, reversed or negative"):
        getattr(locator(0), what)(ranges)


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_ranges_need_not_fit_the_pages(memory, ways):
    """A page that a range only touches counts whole; overlapping ranges count once."""
    pages = memory.private(10).touch()
    start, one = pages.start, PAGE_BYTES

    def found(*ranges):
        placement = locator(0, ways).locate([(start + low, start + high) for low, high in ranges])
        return [(address - start) // one for address in by_page(placement)]

    assert found((1, 2)) == [0]
    assert found((one - 1, one + 1)) == [0, 1]
    assert found((0, one), (0, one)) == [0]
    assert found((2 * one, 5 * one), (one, 3 * one)) == [1, 2, 3, 4]
    assert found((5 * one, 6 * one), (one, 2 * one)) == [1, 5]
    assert found((one, 2 * one - 1), (one + 7, 3 * one)) == [1, 2]
    assert found((-5 * one, 20 * one)) == list(range(10))


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_ranges_with_holes_have_what_is_there(memory, ways):
    """Parts that are not mapped, and all that lies above user space, are just not there."""
    pages = memory.private(10).touch()
    unmap(pages[3:5])
    found = by_page(locator(0, ways).locate([(pages.start, pages.range[1])]))
    assert [(address - pages.start) // PAGE_BYTES for address in found] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert len(locator(0, ways).locate([(2**63, 2**64)])) == 0
    assert len(locator(0, ways).locate([(2**64, 2**70)])) == 0


@pytest.mark.usefixtures("scanning", "thp")
@pytest.mark.parametrize("ways", [ALL_WAYS, ("scan",)], ids="+".join)
def test_ranges_inside_a_huge_page_count_it_once(memory, ways):
    """However many ranges touch a transparent huge page, it is there whole, and once."""
    pages = memory.thp(2).touch()
    start, one = pages.start, PAGE_BYTES

    def found(*ranges):
        placed = locator(0, ways).locate(
            [(start + low * one, start + high * one) for low, high in ranges]
        )
        runs = locator(0, ways).present(
            [(start + low * one, start + high * one) for low, high in ranges]
        )
        assert runs.total_bytes == placed.total_bytes
        return [((s - start) // one, n, size) for s, n, size, _ in placed.runs()]

    assert found((3, 4)) == [(0, 1, HUGE_BYTES)]
    assert found((3, 4), (9, 12), (511, 512)) == [(0, 1, HUGE_BYTES)]
    assert found((511, 513)) == [(0, 2, HUGE_BYTES)]
    assert found((3, 4), (600, 601)) == [(0, 2, HUGE_BYTES)]
    assert found((600, 601)) == [(512, 1, HUGE_BYTES)]


@pytest.mark.usefixtures("scanning", "root")
def test_ranges_inside_a_hugetlb_page_count_it_once(memory, pools):
    """The same holds for the huge pages of the pools."""
    pools.set(0, 2)
    pages = memory.hugetlb(2).touch()
    tails = [
        (pages.start + i * PAGE_BYTES, pages.start + (i + 1) * PAGE_BYTES) for i in (3, 9, 700)
    ]
    for ways in (ALL_WAYS, ("scan",)):
        found = locator(0, ways).locate(tails)
        assert [row[:3] for row in found.runs()] == [(pages.start, 2, HUGE_BYTES)]


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_the_kernels_own_pages_are_nowhere(ways):
    """The vDSO and its kin are in no placement, even if their addresses are asked for."""
    own = [m for m in read_maps(0) if m.path.startswith(KERNEL_OWN)]
    assert own
    everywhere = by_page(locator(0, ways).locate())
    for mapping in own:
        assert not [a for a in range(mapping.start, mapping.end, 4096) if a in everywhere]
        assert len(locator(0, ways).locate([(mapping.start, mapping.end)])) == 0


@pytest.mark.parametrize("what", ["locate", "present"])
def test_a_process_that_is_not_there_is_named(no_pid, what):
    """Nobody's pages are nowhere: an error with the pid, not an empty answer."""
    with pytest.raises(NoSuchProcessError, match=str(no_pid)) as caught:
        getattr(locator(no_pid), what)()
    assert caught.value.pid == no_pid


@pytest.mark.parametrize("what", ["locate", "present"])
def test_a_zombie_has_no_pages(zombie, what):
    """A process that has ended has no memory left to look at."""
    with pytest.raises(NoSuchProcessError, match="has ended"):
        getattr(locator(zombie), what)()


@pytest.mark.usefixtures("root")
def test_a_kernel_thread_has_no_pages(kernel_threads):
    """A kernel thread is there, but has no memory: an empty answer, as it has no mappings."""
    for pid in kernel_threads:
        assert len(locator(pid).locate()) == len(locator(pid).present()) == 0


@pytest.mark.usefixtures("root")
def test_another_users_process_is_off_limits(fork, unprivileged):
    """A process of root is not an ordinary user's to look at."""
    other = fork().pid

    def look():
        try:
            locator(other).locate()
        except CallError as error:
            return error

    refused = unprivileged(look)
    assert type(refused) is NotPermittedError
    assert refused.pid == other


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("reaped", [False, True])
@pytest.mark.parametrize(
    ("module", "step"),
    [
        (locate_module, "read_maps"),
        (locate_module, "read_mappings"),
        (locate_module, "read_frame_nodes"),
        (locate_module, "read_node_runs"),
        (locate_module, "read_process_record"),
        (presence, "spans_of"),
        (presence, "present_regions"),
        (presence, "all_regions"),
        (pagemap, "open_pagemap"),
        (pagemap, "scan"),
        (pagemap, "chunks"),
    ],
)
def test_a_process_that_ends_meanwhile_is_an_error(mortal, monkeypatch, module, step, reaped):
    """Whenever it ends, what was found so far is not passed off as the whole."""
    real = getattr(module, step)

    def kill_first(*arguments, **named):
        mortal.end(reaped=reaped)
        return real(*arguments, **named)

    monkeypatch.setattr(module, step, kill_first)
    with pytest.raises(NoSuchProcessError) as caught:
        mortal.look_in_every_way()
    assert mortal.ended
    assert caught.value.pid == mortal.pid


def test_a_process_that_starts_another_program_is_an_error(crowded):
    """After execve(2) the addresses mean something else: no mixture of both is given out."""
    pid = crowded.pid
    before = living_program(pid)

    def become_another(addresses):
        if living_program(pid) == before:
            crowded.stdin.write(b"exec\n")
            crowded.stdin.flush()
            while living_program(pid) == before:
                pass
        return Asking(pid)(addresses)

    with pytest.raises(NoSuchProcessError, match="started another program meanwhile") as caught:
        locator(pid, ("pfn", "scan"), query=become_another).locate()
    assert caught.value.pid == pid


@pytest.mark.parametrize(
    ("after", "problem"),
    [(("2", "a", "b"), r"there is no process \d+"), (("1", "a", "c"), "started another program")],
)
def test_a_process_that_is_another_afterwards_is_an_error(memory, monkeypatch, after, problem):
    """A pid that is used again, and a new program, are both found out by what names them."""
    pages = memory.private(1).touch()
    names = iter([("1", "a", "b"), after])
    monkeypatch.setattr(locate_module, "living_program", lambda *_: next(names))
    with pytest.raises(NoSuchProcessError, match=problem):
        locator(os.getpid()).locate([pages.range])


def test_entries_that_end_early_are_no_answer(memory, monkeypatch):
    """When the page tables end before the mappings do, the process is on its way out."""
    pages = memory.private(1).touch()

    def cut_short(*_, **__):
        raise EOFError

    monkeypatch.setattr(pagemap, "scan", cut_short)
    with pytest.raises(NoSuchProcessError, match="no process"):
        locator(os.getpid()).locate([pages.range])


def test_a_busy_process_is_located_all_the_same(fork):
    """While mappings come, go, grow together and turn huge, answers come without a crash."""

    def body():
        memory = mmap.mmap(-1, 16 * HUGE_BYTES, flags=mmap.MAP_PRIVATE)
        memory.madvise(mmap.MADV_HUGEPAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None)
        yield start, start + len(memory)
        while True:
            for turn in range(64):
                at = ctypes.c_void_p(start + turn * HUGE_BYTES // 4)
                libc.mprotect(at, HUGE_BYTES // 4, 1 + 2 * (turn % 2))
                libc.mprotect(at, HUGE_BYTES // 4, 3)
                ctypes.memset(at, 1, HUGE_BYTES // 4)
                if turn % 3 == 0:
                    libc.madvise(at, HUGE_BYTES // 4, mmap.MADV_DONTNEED)

    child = fork(body)
    start, end = child.step()
    os.write(child._go, b"!")
    nodes = set(read_block_nodes()[1].values())
    known = {node for pair in nodes for node in pair}
    for turn in range(3 * len(WAYS)):
        ways = WAYS[turn % len(WAYS)]
        for ranges in (None, [(start, end)]):
            placement = locator(child.pid, ways).locate(ranges)
            assert set(placement.node.tolist()) <= known
            assert (np.diff(placement.start.astype(np.int64)) > 0).all()
