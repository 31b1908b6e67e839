from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import stat
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from movepages.emulator.files import Files
from movepages.emulator.filter import Files as Opens, Precision, build_filter, call_numbers
from movepages.emulator.launch import fork_task, mount_privately
from movepages.emulator.procfs import NodePool, edit_numa_maps
from movepages.emulator.replies import Continue, Descriptor, Value
from movepages.emulator.supervisor import Supervisor
from movepages.emulator.sysfs import as_booted, write_tree
from movepages.linux import libc
from movepages.linux.numa_maps import parse_numa_maps
from movepages.linux.seccomp import Notification
from movepages.linux.status import parse_status
from movepages.nodeset import NodeSet
from movepages.topology import parse_topology

pytestmark = pytest.mark.host

NODES = "/sys/devices/system/node"
POOL = f"{NODES}/node0/hugepages/hugepages-2048kB"
PAGES_OF_A_HUGE_PAGE = 512
AT_FDCWD = (1 << 64) - 100  # as a register holds it
POSSIBLE = 4
MACHINE = platform.machine()
SETUID = 105 if MACHINE == "x86_64" else 146  # include/uapi/asm-generic/unistd.h
CLONE_NEWPID = 0x20000000  # include/uapi/linux/sched.h


class FourNodes:
    """Says that all may use nodes 0 to 3, that all their pages are on node 3, and who was asked."""

    def __init__(self):
        """Start with nobody asked."""
        self.asked = []

    def pid_of(self, tid, number):
        """Return the number itself: there is one pid namespace."""
        self.asked.append(("pid_of", tid, number))
        return number if Path(f"/proc/{number}").exists() else None

    def mems_allowed(self, tid):
        """Return all nodes."""
        self.asked.append(("mems_allowed", tid))
        return NodeSet(range(POSSIBLE))

    def numa_maps(self, tid, text):
        """Return all pages on node 3, bound there."""
        self.asked.append(("numa_maps", tid))
        lines = {line.start: line for line in parse_numa_maps(text.decode(), Path("numa_maps"))}
        return edit_numa_maps(
            text,
            lambda _: "bind:3",
            lambda start: {3: sum(lines[start].pages_by_node.values())},
        )

    def used_pages(self, node):
        """Return 100 pages for each node."""
        self.asked.append(("used_pages", node))
        return 100

    def pool(self, node):
        """Return three huge pages, two of them free, for each node."""
        del node
        return NodePool(3, 2, 0, 3 * PAGES_OF_A_HUGE_PAGE)

    def attribute(self, name):
        """Return 7 for the size of a pool; files say all else."""
        self.asked.append(("attribute", name))
        return b"7\n" if name.endswith("nr_hugepages") else None

    def open_to_write(self, name, file):
        """Note it."""
        self.asked.append(("open_to_write", name, file))


@pytest.fixture
def source():
    """Return what the files are to say."""
    return FourNodes()


@pytest.fixture
def tree(tmp_path):
    """Return where the tree of four nodes stands."""
    write_tree(as_booted(parse_topology("4 x 1G"), [2 << 20]), tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture
def mounted(source, tree):
    """Return the handlers where the tree is mounted."""
    return Files(source, tree, POSSIBLE, mounted=True)


@pytest.fixture
def unmounted(source, tree):
    """Return the handlers where it cannot be."""
    return Files(source, tree, POSSIBLE, mounted=False)


def call(handler, *args, tid=0):
    """Call a handler as if this thread, or another with the same memory, had made the call."""
    buffers = [ctypes.create_string_buffer(arg) if isinstance(arg, bytes) else arg for arg in args]
    numbers = [
        ctypes.addressof(buffer) if isinstance(buffer, ctypes.Array) else buffer
        for buffer in buffers
    ]
    numbers += [0] * (6 - len(numbers))
    return handler(Notification(1, tid or threading.get_native_id(), 0, tuple(numbers), 0))


def opened(files, path, flags=os.O_RDONLY, dirfd=AT_FDCWD):
    """Return the reply to an openat."""
    return call(files.openat, dirfd, path, flags)


def open_descriptors():
    """Count the descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def text_of(reply):
    """Return what a descriptor reads, and close it."""
    assert isinstance(reply, Descriptor)
    with os.fdopen(reply.fd, "rb") as file:
        return file.read()


def test_status_tells_the_nodes_of_the_machine_shown(mounted, source):
    """The program's own status has the nodes it may use, and is real in all else."""
    status = parse_status(text_of(opened(mounted, b"/proc/self/status")).decode(), Path("status"))
    assert str(status.mems_allowed) == "0-3"
    assert (status.pid, status.ppid) == (os.getpid(), os.getppid())
    assert source.asked == [("mems_allowed", os.getpid())]


def test_numa_maps_is_that_of_the_machine_shown(mounted):
    """All mappings of the program are there, with the policy and nodes that we say."""
    lines = parse_numa_maps(
        text_of(opened(mounted, b"/proc/self/numa_maps")).decode(), Path("numa_maps")
    )
    assert {line.policy for line in lines} == {"bind:3"}
    assert {node for line in lines for node in line.pages_by_node} == {3}


def test_a_thread_is_told_from_its_process(mounted, source):
    """For a thread, self is its process, thread-self is itself, and a number is whom it names."""
    asked = []

    def ask():
        tid = threading.get_native_id()
        paths = (b"self", b"thread-self", b"self/task/%d" % os.getpid(), b"%d" % tid)
        for path in paths:
            text = text_of(opened(mounted, b"/proc/%s/status" % path)).decode()
            asked.append((parse_status(text, Path("status")).pid, source.asked[-1][1], tid))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    tid = asked[0][2]
    pid = os.getpid()
    assert [numbers[:2] for numbers in asked] == [(pid, pid), (tid, tid), (pid, pid), (tid, tid)]


def test_another_process(mounted, source):
    """The status of any process may be read, and tells the nodes that it may use."""
    status = text_of(opened(mounted, b"/proc/1/status")).decode()
    assert "Mems_allowed_list:\t0-3\n" in status
    assert "Pid:\t1\n" in status
    assert source.asked == [("pid_of", threading.get_native_id(), 1), ("mems_allowed", 1)]


def test_what_does_not_exist_is_left_to_the_kernel(mounted):
    """The kernel says ENOENT itself for a process or a node that is not there."""
    none = int(Path("/proc/sys/kernel/pid_max").read_text())
    for path in (b"/proc/%d/status" % none, b"/proc/self/task/1/status"):
        assert opened(mounted, path) == Continue()
    assert opened(mounted, NODES.encode() + b"/node9/meminfo") == Continue()


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/dev/null",
        b"status",
        b"/etc/status",
        b"/proc/self/stat",
        b"/proc/self/status/",
        b"/proc/meminfo",
        b"/sys/devices/system/node/online",
        b"/sys/devices/system/node",
        b"x" * 4096,
    ],
)
def test_other_files_are_left_to_the_kernel(mounted, source, path):
    """What is not ours continues, and nobody is asked about it."""
    assert opened(mounted, path) == Continue()
    assert source.asked == []


@pytest.mark.parametrize(
    "flags",
    [
        os.O_WRONLY,
        os.O_RDWR,
        os.O_RDONLY | os.O_CREAT,
        os.O_RDONLY | os.O_TRUNC,
        os.O_PATH,
        os.O_DIRECTORY,
    ],
)
def test_unusual_ways_to_open_are_left_to_the_kernel(mounted, flags):
    """Only the kernel can say what comes of them on a real file of /proc."""
    assert opened(mounted, b"/proc/self/status", flags) == Continue()


def test_addresses_that_cannot_be_read(mounted):
    """A bad pointer is for the kernel to refuse, as is a path that does not end."""
    assert call(mounted.openat, AT_FDCWD, 1, os.O_RDONLY) == Continue()
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    memory[:] = b"/" * len(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert call(mounted.openat, AT_FDCWD, address, os.O_RDONLY) == Continue()


@pytest.mark.parametrize("length", [255, 256, 257, 4095])
def test_long_paths(mounted, length):
    """A path of any length that the kernel takes is read whole."""
    path = b"/" * (length - len(b"proc/self/status")) + b"proc/self/status"
    assert b"Mems_allowed_list:\t0-3\n" in text_of(opened(mounted, path))


def test_a_path_at_the_end_of_memory(mounted):
    """A path that ends where the mapping ends is read to its end."""
    page = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    place = libc.mmap(None, ctypes.c_size_t(2 * page), 3, 0x22, -1, 0)
    libc.munmap(place + page, page)
    path = b"/proc/self/status\0"
    ctypes.memmove(place + page - len(path), path, len(path))
    reply = call(mounted.openat, AT_FDCWD, place + page - len(path), os.O_RDONLY)
    libc.munmap(place, page)
    assert b"Mems_allowed_list:\t0-3\n" in text_of(reply)


def test_relative_to_a_descriptor(mounted):
    """A path is relative to the descriptor, whose upper half in the register does not count."""
    dirfd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    for number in (dirfd, dirfd | 1 << 32):
        assert b"0-3\n" in text_of(opened(mounted, b"status", dirfd=number))
    os.close(dirfd)
    assert opened(mounted, b"status", dirfd=dirfd) == Continue()


def test_open_without_a_directory(mounted):
    """open(2) is openat(2) from the working directory."""
    assert b"0-3\n" in text_of(call(mounted.open, b"/proc/self/status", os.O_RDONLY))
    assert set(mounted.handlers()) == {"open", "openat", "openat2"}


@pytest.mark.parametrize(
    ("flags", "resolve", "size", "ours"),
    [
        (os.O_RDONLY, 0, 24, True),
        (os.O_RDONLY, 0x02, 24, True),  # RESOLVE_NO_MAGICLINKS: /proc/self is none
        (os.O_RDONLY, 0x04, 24, False),  # RESOLVE_NO_SYMLINKS: /proc/self is one
        (os.O_RDONLY, 0, 23, False),  # EINVAL
        (os.O_WRONLY, 0, 24, False),
    ],
)
def test_openat2(mounted, flags, resolve, size, ours):
    """openat2(2) is answered as long as it restricts nothing on the way."""
    how = struct.pack("=QQQ", flags, 0, resolve)
    reply = call(mounted.openat2, AT_FDCWD, b"/proc/self/status", how, size)
    if ours:
        assert b"0-3\n" in text_of(reply)
    else:
        assert reply == Continue()


def test_openat2_with_a_bad_pointer(mounted):
    """Where the kernel will say EFAULT, it does so itself."""
    assert call(mounted.openat2, AT_FDCWD, b"/proc/self/status", 1, 24) == Continue()


def test_a_descriptor_is_closed_on_exec_if_that_was_asked_for(mounted):
    """O_CLOEXEC goes to the program's descriptor; ours never survives an exec."""
    for flags, cloexec in ((os.O_CLOEXEC, True), (0, False)):
        reply = opened(mounted, b"/proc/self/status", flags)
        assert reply.cloexec is cloexec
        assert not os.get_inheritable(reply.fd)
        os.close(reply.fd)


def test_what_was_opened_cannot_be_written(mounted):
    """The descriptor is like one of /proc: a file of mode 0444, at its beginning."""
    reply = opened(mounted, b"/proc/self/status")
    status = os.fstat(reply.fd)
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert os.read(reply.fd, 5) == b"Name:"
    assert os.lseek(reply.fd, 0, os.SEEK_SET) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reply.fd, b"x")
    again = os.open(f"/proc/self/fd/{reply.fd}", os.O_RDWR) if os.geteuid() == 0 else -1
    if again >= 0:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
        os.close(again)
    os.close(reply.fd)


def test_no_descriptor_is_left_open(mounted, unmounted):
    """Whatever is answered, we keep nothing but what we give away."""
    before = open_descriptors()
    for files in (mounted, unmounted):
        for path in (b"/proc/self/status", b"/proc/self/numa_maps", NODES.encode(), b"/dev/null"):
            for flags in (os.O_RDONLY, os.O_RDWR, os.O_PATH, os.O_DIRECTORY):
                reply = opened(files, path, flags)
                if isinstance(reply, Descriptor):
                    os.close(reply.fd)
    assert open_descriptors() == before


def test_counters_follow_what_is_in_use(mounted, tree, source):
    """The meminfo of a node is that of the tree with the pages in use taken off what is free."""
    path = f"{NODES}/node2/meminfo"
    text = text_of(opened(mounted, path.encode())).decode()
    used = (100 + 3 * PAGES_OF_A_HUGE_PAGE) * mmap.PAGESIZE >> 10
    assert f"Node 2 MemFree:        {(1 << 20) - used:8d} kB\n" in text
    assert f"Node 2 MemUsed:        {used:8d} kB\n" in text
    assert source.asked == [("used_pages", 2)]
    assert text != Path(f"{tree}{path}").read_text(encoding="ascii")


def test_attribute_says_what_it_is_now(mounted, unmounted, source):
    """A size is read from the source, mounted or not; what that does not know is in the file."""
    for files in (mounted, unmounted):
        assert text_of(opened(files, f"{POOL}/nr_hugepages".encode())) == b"7\n"
    assert source.asked == [("attribute", f"{POOL}/nr_hugepages")] * 2
    assert opened(mounted, f"{POOL}/free_hugepages".encode()) == Continue()
    assert text_of(opened(unmounted, f"{POOL}/free_hugepages".encode())) == b"0\n"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_attribute_that_is_mounted_is_the_kernels_to_open_for_writing(mounted, source, tree, flags):
    """It has the rights of the file; the source is told before."""
    path = f"{POOL}/nr_hugepages"
    assert opened(mounted, path.encode(), flags) == Continue()
    assert source.asked == [("open_to_write", path, Path(f"{tree}{path}"))]


def test_attribute_that_is_not_mounted_cannot_be_written(unmounted, source):
    """Nobody is root there."""
    assert opened(unmounted, f"{POOL}/nr_hugepages".encode(), os.O_WRONLY) == Value(-errno.EACCES)
    assert source.asked == []


def test_attribute_that_the_task_does_not_see_is_not_there(mounted, source):
    """Where nothing could be mounted over, the kernel says that there is no such file."""
    path = POOL.replace("node0", "node99").encode() + b"/nr_hugepages"
    assert opened(mounted, path) == Continue()
    assert source.asked == []


@pytest.fixture
def of_nobody():
    """Start a process without rights, and return its pid."""
    settings = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, **settings) as process:
        yield process.pid
        process.stdin.close()


def test_numa_maps_of_another_user_is_refused(mounted, source, root, of_nobody):  # noqa: ARG001 - a condition
    """Where the program may not look, it gets EACCES, though we could; its status is for all."""
    answers = []

    def ask():
        # Alone this thread gives up root: the system call, unlike libc's, is for one thread.
        ctypes.CDLL(None).syscall(ctypes.c_long(SETUID), ctypes.c_long(1000))
        names = (b"numa_maps", b"status")
        answers.extend(opened(mounted, b"/proc/%d/%s" % (of_nobody, name)) for name in names)

    assert b"bind:3" in text_of(opened(mounted, b"/proc/%d/numa_maps" % of_nobody))
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers[0] == Value(-errno.EACCES)
    assert b"0-3\n" in text_of(answers[1])
    assert ("numa_maps", of_nobody) in source.asked


@pytest.mark.parametrize(
    ("path", "flags", "ret"),
    [
        (b"/online", os.O_WRONLY, errno.EACCES),
        (b"/online", os.O_RDWR, errno.EACCES),
        (b"/online", os.O_RDONLY | os.O_TRUNC, errno.EACCES),
        (b"/made-up", os.O_RDONLY, errno.ENOENT),
        (b"/made-up", os.O_RDONLY | os.O_CREAT, errno.EACCES),
        (b"/online", os.O_RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
        (b"/online/", os.O_RDONLY, errno.ENOTDIR),
        (b"", os.O_RDWR, errno.EACCES),
        (b"/node0/subsystem", os.O_RDONLY | os.O_NOFOLLOW, errno.ELOOP),
        (b"/node0/meminfo", os.O_WRONLY, errno.EACCES),
    ],
)
def test_refusals_of_a_tree_that_is_not_mounted(unmounted, path, flags, ret):
    """The tree refuses what the real one refuses a user."""
    assert opened(unmounted, NODES.encode() + path, flags) == Value(-ret)


def test_files_of_a_tree_that_is_not_mounted(unmounted, tree):
    """Files are read, and directories listed, by descriptors of the generated ones."""
    assert text_of(opened(unmounted, NODES.encode() + b"/online")) == b"0-3\n"
    assert text_of(opened(unmounted, b"/sys/bus/node/devices/node3/distance")) == b"20 20 20 10\n"
    assert b"Node 1 MemUsed:" in text_of(opened(unmounted, NODES.encode() + b"/node1/meminfo"))
    for flags in (os.O_DIRECTORY, os.O_PATH | os.O_DIRECTORY, os.O_RDONLY):
        reply = opened(unmounted, NODES.encode(), flags)
        names = {path.name for path in (tree / NODES[1:]).iterdir()}
        assert set(os.listdir(reply.fd)) == names  # noqa: PTH208 - by descriptor
        inner = opened(unmounted, b"node1/cpulist", dirfd=reply.fd)
        os.close(reply.fd)
        assert text_of(inner) == (tree / NODES[1:] / "node1/cpulist").read_bytes()


def test_other_files_where_nothing_is_mounted(unmounted):
    """What lies outside the tree continues, below /sys as well."""
    for path in (b"/sys/devices/system/cpu/online", b"/dev/null", b"x", b"../x", b"/sys/x"):
        assert opened(unmounted, path) == Continue()


@pytest.fixture
def under_the_filter():
    """Return a function that runs a body in a child whose opens are answered; it returns bytes."""

    def ran(files, body, mounts=()):
        reading, writing = os.pipe()

        def told():
            os.write(writing, body())

        launch = fork_task(told, furnish=lambda: mount_privately(mounts))
        os.close(writing)
        numbers = call_numbers(MACHINE)
        assert not launch.furnished()
        listener = launch.install(build_filter(MACHINE, Precision.LAZY, Opens.ALL))
        launch.start()
        tally = Supervisor(listener, files.handlers(), numbers).serve()
        listener.close()
        _, status = os.waitpid(launch.pid, 0)
        with os.fdopen(reading, "rb") as file:
            said = file.read()
        assert tally.complaint() == ""
        assert os.waitstatus_to_exitcode(status) == 0
        return said

    return ran


@pytest.mark.emulator
def test_a_program_reads_what_we_say(mounted, under_the_filter):
    """A real program opens status and numa_maps by the real calls and reads ours."""

    def body():
        status = Path("/proc/self/status").read_bytes()
        maps = Path("/proc/thread-self/numa_maps").read_bytes()
        return b"%d %d" % (b"0-3\n" in status, b"bind:3" in maps)

    assert under_the_filter(mounted, body) == b"1 1"


@pytest.mark.emulator
def test_a_program_that_has_the_tree_mounted(source, tmp_path, under_the_filter):
    """Mounted files come from the kernel, counters from us, by links and descriptors as well."""
    directory = tmp_path / "tree"
    mounts = write_tree(as_booted(parse_topology("4 x 1G"), [2 << 20]), directory)
    files = Files(source, directory, POSSIBLE, mounted=True)

    def body():
        dirfd = os.open(f"{NODES}/node2", os.O_RDONLY | os.O_DIRECTORY)
        relative = os.open("meminfo", os.O_RDONLY, dir_fd=dirfd)
        online = Path(f"{NODES}/online").read_bytes()
        linked = Path("/sys/bus/node/devices/node1/meminfo").read_bytes()
        return b"%s%d %d" % (
            online,
            linked.startswith(b"Node 1 MemTotal:        1048576 kB\n"),
            os.read(relative, 4096).startswith(b"Node 2 "),
        )

    assert under_the_filter(files, body, mounts) == b"0-3\n1 1"
    assert source.asked == [("used_pages", 2), ("used_pages", 1)]


@pytest.mark.emulator
def test_a_program_in_a_pid_namespace(mounted, source, root, under_the_filter):  # noqa: ARG001 - a condition
    """A program with a /proc of its own reads its own numbers there; we are asked by ours."""

    def body():
        libc.unshare(libc.CLONE_NEWNS | CLONE_NEWPID)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            libc.mount("none", "/", libc.MS_REC | libc.MS_PRIVATE)
            ctypes.CDLL(None).mount(b"proc", b"/proc", b"proc", 0, None)
            os.write(writing, Path("/proc/self/status").read_bytes())
            os._exit(0)
        os.waitpid(child, 0)
        return b"%d\n" % child + os.read(reading, 1 << 16)

    number, _, text = under_the_filter(mounted, body).partition(b"\n")
    status = parse_status(text.decode(), Path("status"))
    assert (status.pid, status.nspid, str(status.mems_allowed)) == (1, (1,), "0-3")
    assert source.asked == [("mems_allowed", int(number))]


@pytest.mark.emulator
def test_a_program_where_nothing_is_mounted(unmounted, under_the_filter):
    """A directory can be listed, and files opened in it, by descriptors of the generated tree."""

    def body():
        dirfd = os.open(NODES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        names = sorted(os.listdir(dirfd))  # noqa: PTH208 - by descriptor
        inner = os.open("node3/distance", os.O_RDONLY, dir_fd=dirfd)
        return (
            " ".join(name for name in names if name[:4] == "node").encode()
            + b": "
            + os.read(inner, 64)
        )

    assert under_the_filter(unmounted, body) == b"node0 node1 node2 node3: 20 20 20 10\n"
