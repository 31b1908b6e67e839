"""The real kernel as a Machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guestkit.pages import PAGE_BYTES

from movepages.abi import Mode, MoveFlag
from movepages.errors import ArgumentError, NoSuchProcessError
from movepages.linux import mempolicy
from movepages.linux.machine import LinuxMachine
from movepages.linux.nodes import read_has_memory
from movepages.nodeset import NodeSet
from movepages.values import Conditions, Policy

MACHINE = LinuxMachine()


@pytest.fixture
def home() -> int:
    """A node with memory."""
    return min(read_has_memory())


def test_a_captured_machine_can_stand_in_for_this_one(tree):
    """With another root the nodes are those of the captured tree."""
    machine = LinuxMachine(tree("cpu-less"))
    topology = machine.topology()
    assert topology.with_cpus < topology.with_memory
    assert machine.free_bytes() == {node.id: node.free_bytes for node in topology}


@pytest.mark.host
def test_this_process_is_among_the_tasks():
    """Every process in user space is listed once, by pid, as `task` describes it."""
    tasks = {task.pid: task for task in MACHINE.tasks()}
    own = MACHINE.task(os.getpid())
    assert tasks[os.getpid()].id == own.id
    assert (own.parent, own.uid) == (os.getppid(), os.geteuid())
    assert own.mems_allowed <= read_has_memory()
    assert list(tasks) == sorted(tasks)


@pytest.mark.host
def test_a_pid_that_nobody_has_names_no_task(no_pid):
    """An unused pid is an error."""
    with pytest.raises(NoSuchProcessError):
        MACHINE.task(no_pid)


@pytest.mark.host
def test_the_nodes_and_their_memory():
    """Topology and free memory speak of the same nodes, in bytes."""
    topology = MACHINE.topology()
    assert topology.with_memory == read_has_memory()
    assert set(MACHINE.free_bytes()) == topology.online
    assert all(
        0 <= free <= topology.node(n).memory_bytes for n, free in MACHINE.free_bytes().items()
    )


@pytest.mark.host
def test_pages_are_found_moved_and_asked_about(memory):
    """Mappings, present, locate, query and move agree about the same pages."""
    pages = memory.private(32).touch()
    (node,) = set(MACHINE.query_pages(0, pages.addresses).status.tolist())
    moved = MACHINE.move_pages(0, pages.addresses, np.full(32, node, np.int32), MoveFlag.MOVE)
    assert (moved.ret, moved.counts()) == (0, {node: 32})
    (mapping,) = [m for m in MACHINE.mappings(0) if m.start == pages.start]
    assert mapping.pages_by_node == {node: 32}
    assert MACHINE.present(0, [pages.range]).addresses().tolist() == pages.addresses.tolist()
    assert MACHINE.locate(0, [pages.range]).bytes_by_node == {node: 32 * PAGE_BYTES}


@pytest.mark.host
@pytest.mark.parametrize("part", [slice(None, None, 2), slice(None, None, -1), slice(1, 1)])
def test_arrays_with_gaps_name_the_pages_they_hold(memory, part):
    """A view with gaps is passed as what it shows, not as what lies in memory behind it."""
    pages = memory.private(8)
    pages[:4].touch()
    addresses = pages.addresses[part]
    there = np.isin(addresses, pages.addresses[:4])
    status = MACHINE.query_pages(0, addresses).status
    assert (status >= 0).tolist() == there.tolist()
    nodes = np.full(16, min(read_has_memory()), dtype=np.int64)[: 2 * len(addresses) : 2]
    assert len(MACHINE.move_pages(0, addresses, nodes, MoveFlag.MOVE).status) == len(addresses)


@pytest.mark.host
@pytest.mark.parametrize("nodes", [0, 2, 4])
def test_arrays_of_different_lengths_are_refused(memory, nodes):
    """The kernel would read behind the shorter one."""
    pages = memory.private(3)
    with pytest.raises(ArgumentError, match=f"3 addresses but {nodes} nodes"):
        MACHINE.move_pages(0, pages.addresses, np.zeros(nodes, np.int32), MoveFlag.MOVE)


@pytest.mark.host
def test_policies_are_set_and_got(fork, memory, home):
    """The caller's policy, and that of a range of its memory, are what was set."""
    pages = memory.private(2)

    def body():
        MACHINE.set_policy(Mode.INTERLEAVE, [home])
        MACHINE.mbind(pages.start, pages.size_bytes, Mode.BIND, [home], 0)
        yield MACHINE.get_policy(), mempolicy.get_mempolicy(pages.start)

    assert fork(body).step() == (
        Policy(Mode.INTERLEAVE, NodeSet([home])),
        Policy(Mode.BIND, NodeSet([home])),
    )


@pytest.mark.host
def test_all_pages_can_be_migrated_to_where_they_are(fork, home):
    """Nothing stays behind when the target is where the pages are."""
    assert MACHINE.migrate_pages(fork().pid, [home], [home]) == 0


@pytest.mark.host
def test_conditions_tell_the_callers_rights(unprivileged):
    """Root sees frames and moves shared pages, others do neither; the machine is the same."""
    ours, theirs = MACHINE.conditions(), unprivileged(MACHINE.conditions)
    assert (theirs.sees_pfns, theirs.moves_shared) == (False, False)
    if os.geteuid() == 0:
        assert (ours.sees_pfns, ours.moves_shared) == (True, True)
    for conditions in (ours, theirs):
        assert conditions.numa_balancing in {None, 0, 1, 2}
        assert conditions.demotion in {None, False, True}
        assert conditions.swap_bytes >= 0
    assert isinstance(ours, Conditions)


@pytest.mark.host
def test_settings_are_those_of_the_files():
    """What /proc says now, and no call is refused where none is filtered."""
    settings = MACHINE.settings()
    paranoid = Path("/proc/sys/kernel/perf_event_paranoid")
    assert settings.perf_event_paranoid == (
        int(paranoid.read_text()) if paranoid.exists() else None
    )
    assert settings.thp in {None, "always", "madvise", "never"}
    assert settings.refused == ()


@pytest.mark.host
def test_numpy_is_loaded_when_arrays_are(tmp_path):
    """Topology, mappings and tasks do without NumPy."""
    code = (
        "import sys\n"
        "from movepages.linux.machine import LinuxMachine\n"
        "machine = LinuxMachine()\n"
        "machine.topology(), machine.free_bytes(), machine.mappings(0), machine.task(0)\n"
        "sys.exit('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path)
    assert done.returncode == 0
