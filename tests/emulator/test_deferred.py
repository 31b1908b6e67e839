"""The machine that is made when it is needed: what goes without it, what brings it about."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest

from movepages.abi import CALLS
from movepages.emulator.declared import MOST_NODES
from movepages.emulator.deferred import DeferredMachine
from movepages.emulator.early_faults import MANY_BYTES
from movepages.emulator.filter import Precision
from movepages.emulator.machine import EmulatedMachine
from movepages.emulator.replies import Continue, Value
from movepages.errors import TopologyError
from movepages.kernel import LINUX_6_12
from movepages.linux.seccomp import Notification
from movepages.topology import parse_topology

pytestmark = pytest.mark.emulator

EMULATE = (sys.executable, "-m", "movepages", "emulate")
MUCH_BYTES = MANY_BYTES // 40 * 4096 * 5 // 4
"""Of memory: a quarter more pages than bring a machine about; a fault takes 40 bytes."""


class Deferred:
    """A machine of four nodes that this process is the program of, and how often it was made."""

    def __init__(self, precision, directory):
        """Declare it, attach it, and write its files."""
        self.made = 0
        self.declared = DeferredMachine(parse_topology("4x(0cpu,1G)"), precision, self.make)
        self.declared.attach(os.getpid())
        self.declared.furnish(directory)
        self.handlers = self.declared.handlers(directory, mounted=True)

    def make(self):
        """Make the machine."""
        self.made += 1
        return EmulatedMachine(parse_topology("4x(0cpu,1G)"), LINUX_6_12, Precision.EXACT)

    def reply(self, name, *arguments):
        """Hand in a call of this process."""
        six = (*arguments, *[0] * (6 - len(arguments)))
        return self.handlers[name](Notification(1, os.getpid(), 0, six, 0))


@pytest.fixture
def deferred(tmp_path):
    """Return what makes a deferred machine of a precision."""
    return partial(Deferred, directory=tmp_path)


@pytest.mark.parametrize("name", ["munmap", "mmap", "madvise", "brk", "shmdt"])
def test_changes_of_the_map_have_nothing_to_forget_at_first(deferred, name):
    """Before a machine is there such calls go on without one, and afterwards they go to it."""
    machine = deferred(Precision.EXACT)
    assert machine.reply(name, 1 << 40, 4096, 4) == Continue()
    assert machine.made == 0
    machine.declared.machine()
    assert machine.reply(name, 1 << 40, 4096, 4) == Continue()
    assert machine.made == 1


def test_pages_that_are_mapped_elsewhere_bring_it_about(deferred):
    """Who touched them has to be known while they are where they were touched."""
    machine = deferred(Precision.EXACT)
    assert machine.reply("mremap", 1 << 40, 4096, 8192) == Continue()
    assert machine.made == 1


def test_numa_calls_bring_it_about_once(deferred):
    """The first NUMA call makes the machine, and further ones find it."""
    machine = deferred(Precision.EXACT)
    for _ in range(3):
        assert machine.reply("get_mempolicy") == Value(0)
    assert machine.made == 1


@pytest.mark.parametrize(
    ("precision", "changes"),
    [(Precision.LAZY, set()), (Precision.EXACT, {"munmap", "mmap", "madvise", "mremap"})],
)
def test_calls_are_those_of_the_machine(deferred, precision, changes):
    """It answers what its machine answers, and opens of files."""
    machine = deferred(precision)
    whole = EmulatedMachine(parse_topology("4x(0cpu,1G)"), LINUX_6_12, precision)
    assert set(machine.handlers) == {*whole.handlers(), "open", "openat", "openat2"}
    assert changes <= set(machine.handlers)
    assert {*CALLS, "getcpu"} <= set(machine.handlers)


def test_files_say_that_nobody_uses_it(deferred):
    """Before there is a machine its nodes are empty; the pages of a process take one."""
    machine = deferred(Precision.EXACT)
    pid = os.getpid()
    assert machine.declared.used_pages(0) == 0
    assert machine.declared.pool(0) is None
    assert machine.declared.attribute("/sys/x") is None
    assert str(machine.declared.mems_allowed(pid)) == "0-3"
    assert machine.declared.pid_of(pid, pid) == pid
    assert machine.made == 0
    line = b"7fff00000000 default anon=1 N0=1 kernelpagesize_kB=4\n"
    assert machine.declared.numa_maps(pid, line).startswith(b"7fff00000000 default")
    assert machine.made == 1
    assert machine.declared.used_pages(0) == 0


def test_report_takes_a_machine(deferred):
    """Who wants a report gets that of the machine, also where nothing has been asked of it."""
    assert deferred(Precision.LAZY).declared.report()["pages_moved"] == 0


def test_making_that_fails_is_tried_again(deferred):
    """A call that needs a machine which could not be made fails; the next one makes it."""
    machine = deferred(Precision.EXACT)
    make, machine.declared._make = machine.declared._make, {}.popitem
    with pytest.raises(KeyError):
        machine.reply("get_mempolicy")
    machine.declared._make = make
    assert machine.reply("get_mempolicy") == Value(0)


@pytest.mark.parametrize("nodes", [MOST_NODES, MOST_NODES + 1])
def test_node_numbers_beyond_a_byte_are_refused(nodes):
    """More nodes than can be kept are an error when the machine is declared, not later."""
    declare = partial(DeferredMachine, parse_topology(f"{nodes}x(0cpu,1M)"), Precision.LAZY, dict)
    if nodes <= MOST_NODES:
        declare()
        return
    with pytest.raises(TopologyError, match="numbered 0 to 127"):
        declare()


def emulated(*command):
    """Run a command on four emulated nodes; return what it prints."""
    done = subprocess.run(
        [*EMULATE, "--", *command], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stderr == ""
    return done.stdout


def test_program_without_numa_calls_waits_for_no_numpy():
    """The supervisor of such a program never loads it; that of one with such calls does."""
    numpy = "grep -c _multiarray_umath /proc/$PPID/maps"
    assert (
        emulated("sh", "-c", f"ls /sys/devices/system/node > /dev/null; {numpy} || true") == "0\n"
    )
    assert (
        emulated("sh", "-c", f"numactl --show > /dev/null; {numpy} > /dev/null; echo $?") == "0\n"
    )


def test_many_faults_bring_it_about():
    """A program that touches much has a machine before it makes a NUMA call."""
    code = (
        "import mmap, os",
        f"memory = mmap.mmap(-1, {MUCH_BYTES}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "memory.madvise(mmap.MADV_NOHUGEPAGE)",
        f"for at in range(0, {MUCH_BYTES}, 4096): memory[at] = 1",
        "maps = f'/proc/{os.getppid()}/maps'",
        "while '_multiarray_umath' not in open(maps).read(): pass",
        "print('made')",
    )
    assert emulated(sys.executable, "-S", "-c", "\n".join(code)) == "made\n"


def test_touches_before_it_was_made_are_known():
    """A page is on the node of the CPU that touched it, also if that was before the first call.

    Much is touched on one CPU; then the program goes on on another, and asks for single pages.
    """
    code = (
        "import ctypes, mmap, os",
        "from movepages.linux.syscalls import move_pages",
        "cpus = sorted(os.sched_getaffinity(0))",
        "os.sched_setaffinity(0, {cpus[-1]})",
        f"memory = mmap.mmap(-1, {MUCH_BYTES}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "memory.madvise(mmap.MADV_NOHUGEPAGE)",
        f"for at in range(0, {MUCH_BYTES}, 4096): memory[at] = 1",
        "os.sched_setaffinity(0, {cpus[0]})",
        "start = ctypes.addressof(ctypes.c_char.from_buffer(memory))",
        "pages = (ctypes.c_size_t * 64)(*range(start, start + 4096 * 64, 4096))",
        "status = (ctypes.c_int * 64)()",
        "assert move_pages(0, 64, ctypes.addressof(pages), None, ctypes.addressof(status), 0) == 0",
        "cpu = f'/sys/devices/system/cpu/cpu{cpus[-1]}'",
        "link, = [name for name in os.listdir(cpu) if name[:4] == 'node']",
        "print({f'node{node}' for node in status} == {link})",
    )
    assert emulated(sys.executable, "-c", "\n".join(code)) == "True\n"


def test_generated_files_are_in_no_directory():
    """While a program runs, what is mounted for it is to be found by nobody else."""
    front = "front=$(cut -d' ' -f4 /proc/$PPID/stat)"
    listing = f"{front}; ls -d /dev/shm/movepages-$front-* /tmp/movepages-$front-* 2> /dev/null"
    said = emulated("sh", "-c", f"{listing}; cat /sys/devices/system/node/online")
    assert said == "0-3\n"
