from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import resource
from pathlib import Path

import pytest

from movepages.abi import Mode
from movepages.errors import ArgumentError, NotPermittedError, UnsupportedError
from movepages.linux import mempolicy, object_memory, own_memory
from movepages.linux.machine import LinuxMachine
from movepages.linux.object_memory import (
    HUGE_WINDOW_BYTES,
    WINDOW_BYTES,
    FileMemory,
    SegmentMemory,
    attached_segment,
    file_memory,
    segment_memory,
)
from movepages.linux.shm import list_posix_shm, read_sysv_segments
from movepages.nodeset import NodeSet
from movepages.values import Policy

pytestmark = pytest.mark.host
PAGE = mmap.PAGESIZE
NOBODY = 65534
IPC_PRIVATE, IPC_RMID = 0, 0


@pytest.fixture
def sparse(tmp_path):
    """Return a file of 101 pages and a bit, of which pages 3, 4, 50 and the last were written."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for page, size in ((3, 2 * PAGE), (50, PAGE), (100, 7)):
            file.seek(page * PAGE)
            file.write(b"x" * size)
    return path


@pytest.fixture
def segment():
    """Return a System V segment of four pages, the first two of them written to, and its libc."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = [ctypes.c_void_p]
    shmid = libc.shmget(IPC_PRIVATE, ctypes.c_size_t(4 * PAGE - 1), 0o600)
    address = libc.shmat(shmid, None, 0)
    ctypes.memset(address, 7, 2 * PAGE)
    libc.shmdt(address)
    (found,) = (each for each in read_sysv_segments() if each.shmid == shmid)
    yield found
    libc.shmctl(shmid, IPC_RMID, None)


@contextlib.contextmanager
def nobody():
    """Be a user without rights while the block lasts, where this is run by root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def present(memory):
    """Return the pages of an object that are in memory, by number; None where none is."""
    ((offset, end),) = memory.windows()
    with memory.mapped(offset, end) as span:
        if span is None:
            return None
        placement = LinuxMachine().locate(0, [span])
        return ((placement.page_runs().addresses() - span[0]) // PAGE).tolist()


def mappings():
    """Count the mappings of this process."""
    return len(LinuxMachine().mappings(0))


def test_what_is_in_memory_is_mapped_and_nothing_more(sparse):
    """Pages in memory are mapped, holes stay holes, and nothing stays mapped behind."""
    allocated, before = sparse.stat().st_blocks, mappings()
    with file_memory(sparse) as memory:
        assert (memory.size_bytes, memory.length_bytes) == (100 * PAGE + 7, 101 * PAGE)
        for _ in range(2):
            assert present(memory) == [3, 4, 50, 100]
    assert sparse.stat().st_blocks == allocated
    assert mappings() == before


def test_a_window_in_the_middle(sparse):
    """Any pages of a file can be a window; one without pages in memory has no addresses."""
    with file_memory(sparse) as memory:
        with memory.mapped(4 * PAGE, 51 * PAGE) as (start, end):
            assert end - start == 47 * PAGE
            placement = LinuxMachine().locate(0, [(start, end)])
            assert placement.start.tolist() == [start, start + 46 * PAGE]
        with memory.mapped(5 * PAGE, 50 * PAGE) as span:
            assert span is None


def test_a_kernel_that_cannot_populate(sparse, monkeypatch):
    """Where the kernel does not know MADV_POPULATE_READ, as before 5.14, pages are read instead."""
    monkeypatch.setattr(own_memory, "MADV_POPULATE_READ", 999)
    with file_memory(sparse) as memory:
        assert present(memory) == [3, 4, 50, 100]


def test_a_file_that_is_cut_meanwhile(sparse):
    """What is there no more is not mapped, and nothing is said of it."""
    with file_memory(sparse) as memory:
        os.truncate(sparse, 4 * PAGE)
        assert present(memory) == [3]
        os.truncate(sparse, 0)
        assert present(memory) is None


def test_a_failure_to_map_is_told(sparse, monkeypatch):
    """What mincore and madvise say besides is an error."""
    with pytest.raises(UnsupportedError, match="mincore: Cannot allocate memory"):
        object_memory._fault_in((0, PAGE), whole=False)
    monkeypatch.setattr(object_memory, "_GONE", set())
    with file_memory(sparse) as memory, memory.mapped(0, 4 * PAGE) as span:
        os.truncate(sparse, 0)
        with pytest.raises(UnsupportedError, match="pages cannot be mapped: Bad address"):
            object_memory._fault_in(span, whole=True)


@pytest.mark.parametrize(
    ("size_bytes", "hugetlb", "windows"),
    [
        (0, False, 0),
        (WINDOW_BYTES, False, 1),
        (WINDOW_BYTES + PAGE, False, 2),
        (HUGE_WINDOW_BYTES, True, 1),
        (HUGE_WINDOW_BYTES + PAGE, True, 2),
    ],
)
def test_windows(size_bytes, hugetlb, windows):
    """An object is cut into windows that follow each other, and the last may be shorter."""
    file = FileMemory("file", -1, size_bytes, size_bytes, hugetlb)
    cut = list(file.windows())
    assert cut == list(SegmentMemory(PAGE, size_bytes, size_bytes, hugetlb).windows())
    assert len(cut) == windows
    assert sum(end - offset for offset, end in cut) == size_bytes
    assert all(end == offset for (_, end), (offset, _) in itertools.pairwise(cut))


def test_an_empty_file(tmp_path):
    """It has no windows and no policy, whatever that of the caller is."""
    (tmp_path / "empty").touch()
    mempolicy.set_mempolicy(Mode.BIND, {0})
    try:
        with file_memory(tmp_path / "empty") as memory:
            assert (memory.size_bytes, list(memory.windows())) == (0, [])
            assert memory.policy() == Policy(Mode.DEFAULT)
    finally:
        mempolicy.set_mempolicy(Mode.DEFAULT, ())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/no/such/file", "cannot be opened: No such file or directory; name a file"),
        ("/dev", "is a directory; name regular files or block devices"),
        ("/dev/null", "is no file with pages; name regular files or block devices"),
        ("\0", "cannot be opened: embedded null byte"),
    ],
)
def test_what_has_no_pages(path, told):
    """It is refused for what it is."""
    with pytest.raises(ArgumentError, match=told), file_memory(Path(path)):
        pass


def test_a_pipe_is_not_waited_for(tmp_path):
    """A pipe without a writer is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(ArgumentError, match="is no file with pages"),
        file_memory(tmp_path / "pipe"),
    ):
        pass


def test_a_file_that_cannot_be_mapped():
    """What the kernel refuses to map is told by its name: here, a file that is not open."""
    closed = FileMemory("index", -1, PAGE, PAGE)
    told = "index cannot be mapped: Bad file descriptor"
    with pytest.raises(UnsupportedError, match=told), closed.mapped(0, PAGE):
        pass


def test_more_files_than_are_allowed_at_first(tmp_path):
    """The limit of open files is raised as far as this process may raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "file").touch()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with file_memory(tmp_path / "file") as memory:
            assert memory.size_bytes == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_may_not_be_read(sparse):
    """It is a matter of rights."""
    sparse.chmod(0)
    with nobody(), pytest.raises(NotPermittedError, match="may not be read"), file_memory(sparse):
        pass


def test_a_file_of_others_is_refused():
    """The kernel calls all of it resident for who may not write to it, so it is not asked."""
    with (
        nobody(),
        pytest.raises(NotPermittedError, match="is neither yours nor writable to you"),
        file_memory(Path("/etc/passwd")),
    ):
        pass


def test_files_of_ones_own_or_writable(tmp_path):
    """Owner, who may write, and root are told the truth; they are let through."""
    path = tmp_path / "mine"
    path.write_bytes(b"x")
    facts = path.stat()
    object_memory._refuse_stranger(path, facts, Path("/"))
    stranger = os.stat_result([*facts[:4], facts.st_uid + 1, *facts[5:]])
    object_memory._refuse_stranger(path, stranger, Path("/"))
    with contextlib.suppress(NotPermittedError):  # root only
        object_memory._refuse_stranger(Path("/proc/version"), stranger, Path("/"))


@pytest.mark.parametrize(
    ("block_bytes", "filesystem", "huge"),
    [(2 << 20, "hugetlbfs", True), (2 << 20, "nfs", False), (PAGE, "hugetlbfs", False)],
)
def test_hugetlb_is_known_by_its_mount(tmp_path, put, block_bytes, filesystem, huge):
    """A file is of hugetlb where its device is; of files with small blocks nobody asks."""
    facts = tmp_path.stat()
    device = f"{os.major(facts.st_dev)}:{os.minor(facts.st_dev)}"
    line = f"20 1 {device} / / rw - {filesystem} none rw\n"
    like = os.stat_result(tuple(facts)[:10], {"st_dev": facts.st_dev, "st_blksize": block_bytes})
    assert object_memory._is_hugetlb(like, put("proc/self/mountinfo", line)) is huge


@pytest.mark.parametrize(("there", "windows"), [(0, 0), (2 * PAGE, 1), (3 * PAGE, 1)])
def test_hugetlb_of_which_all_or_nothing_is_there(there, windows):
    """It is looked at as a whole, or has no windows: a look would make what is not there."""
    memory = SegmentMemory(PAGE, 2 * PAGE, 2 * PAGE, hugetlb=True)
    whole = object_memory._if_whole("pool", there, memory)
    assert (len(list(whole.windows())), whole.size_bytes) == (windows, 2 * PAGE)


@pytest.mark.parametrize("there", [1, PAGE, 2 * PAGE - 1])
def test_hugetlb_of_which_a_part_is_there(there):
    """It is refused, for nobody knows which."""
    memory = SegmentMemory(PAGE, 2 * PAGE, 2 * PAGE, hugetlb=True)
    with pytest.raises(UnsupportedError, match="and the kernel does not tell which"):
        object_memory._if_whole("pool", there, memory)


def test_how_much_of_a_segment_is_allocated(segment):
    """Root is told by the file behind the mapping; others are told that only root is."""
    with attached_segment(segment) as memory:
        if os.geteuid() == 0:
            assert object_memory._allocated_bytes("sysv:1", memory) == 2 * PAGE
        with nobody(), pytest.raises(NotPermittedError, match="only root is told; run as root"):
            object_memory._allocated_bytes("sysv:1", memory)


def test_a_segment_is_attached(segment):
    """Its pages in memory are mapped, as those of a file are, and it is detached behind."""
    with attached_segment(segment) as memory:
        assert (memory.size_bytes, memory.length_bytes) == (4 * PAGE - 1, 4 * PAGE)
        assert present(memory) == [0, 1]
        assert LinuxMachine().locate(0, [(memory.start, memory.start + 4 * PAGE)]).total_bytes == 0
    (after,) = (each for each in read_sysv_segments() if each.shmid == segment.shmid)
    assert (after.nattch, after.rss_bytes) == (0, 2 * PAGE)


def test_a_segment_that_may_not_be_read():
    """A segment whose mode lets nobody in, its owner neither, is a matter of rights."""
    libc = ctypes.CDLL(None)
    shmid = libc.shmget(IPC_PRIVATE, ctypes.c_size_t(PAGE), 0)
    (found,) = (each for each in read_sysv_segments() if each.shmid == shmid)
    try:
        with nobody(), pytest.raises(NotPermittedError, match="may not be read"):  # noqa: SIM117
            with segment_memory(found):
                pass
    finally:
        libc.shmctl(shmid, IPC_RMID, None)


def test_a_segment_that_has_gone(segment):
    """A segment that was removed meanwhile is told of as such."""
    ctypes.CDLL(None).shmctl(segment.shmid, IPC_RMID, None)
    with (
        pytest.raises(ArgumentError, match=r"there is no segment sysv:\d+ any more"),
        segment_memory(segment),
    ):
        pass


def test_a_segment_without_room():
    """Another failure of shmat(2) is told in its words."""
    error = object_memory._not_attached("sysv:1", 12)
    assert str(error) == "sysv:1 cannot be attached: Cannot allocate memory; see shmat(2)"


def test_policy_is_that_of_the_object():
    """A file in /dev/shm has its own policy, whatever that of the caller is."""
    path = Path(f"/dev/shm/movepages-test-policy-{os.getpid()}")
    path.write_bytes(b"x" * 2 * PAGE)
    try:
        mempolicy.set_mempolicy(Mode.BIND, {0})
        (file,) = (each for each in list_posix_shm() if each.path == path)
        with segment_memory(file) as memory:
            assert memory.policy() == Policy(Mode.DEFAULT)
            with memory.mapped(0, PAGE) as (start, _):
                mempolicy.mbind(start, PAGE, Mode.PREFERRED, {0}, 0)
        with segment_memory(file) as memory:
            assert memory.policy() == Policy(Mode.PREFERRED, NodeSet([0]))
    finally:
        mempolicy.set_mempolicy(Mode.DEFAULT, ())
        path.unlink()
