"""The policy of a block: on the model, with its cpusets, and on the kernel of this machine."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

import movepages
from movepages.abi import Mode, ModeFlag
from movepages.errors import (
    ArgumentError,
    MovePagesError,
    NodeSetError,
    NoSuchNodeError,
    OutsideCpusetError,
    UnsupportedError,
)
from movepages.kernel import SimulatedMachine
from movepages.kernel.tasks import Cpuset
from movepages.linux import mempolicy as calls
from movepages.nodeset import NodeSet
from movepages.values import Policy


@pytest.fixture
def model():
    """A machine of four nodes as a process sees it whose cpuset leaves one of them out."""
    machine = SimulatedMachine("4 x 16M")
    task = machine.spawn(cpuset=Cpuset(NodeSet([0, 1, 2])))
    return SimpleNamespace(task=task, view=machine.as_task(task), machine=machine)


def touched(model, pages):
    """Touch new pages and return on which nodes they are, in order of address."""
    first = model.task.mmap(pages)
    model.task.write(first, pages)
    size = model.view.page_size_bytes
    return model.view.locate(0, [(first, first + pages * size)]).page_nodes().tolist()


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"bind": {1}}, [1] * 6),
        ({"bind": 1}, [1] * 6),
        ({"bind": (1, 2)}, [1] * 6),
        ({"preferred": 2}, [2] * 6),
        ({"preferred": [1, 2]}, [1] * 6),
        ({"interleave": {0, 2}}, [0, 2] * 3),
        ({"local": True}, [0] * 6),
    ],
)
def test_what_is_touched_in_the_block_comes_there(model, asked, nodes):
    """Each policy puts pages where it says, and after the block they come to the own node again."""
    with movepages.mempolicy(machine=model.view, **asked):
        assert sorted(touched(model, 6)) == sorted(nodes)
    assert touched(model, 3) == [0, 0, 0]
    assert model.view.get_policy() == Policy(Mode.DEFAULT)


def test_weighted(model):
    """By turns with the kernel's weights, which are alike where nobody has set them."""
    with movepages.mempolicy(weighted=[0, 1], machine=model.view):
        assert model.view.get_policy() == Policy(Mode.WEIGHTED_INTERLEAVE, NodeSet([0, 1]))


def test_nested_blocks(model):
    """Each block gives back the policy of the block around it."""
    view = model.view
    with movepages.mempolicy(bind=1, machine=view):
        with movepages.mempolicy(interleave=[0, 2], machine=view):
            assert view.get_policy() == Policy(Mode.INTERLEAVE, NodeSet([0, 2]))
        assert view.get_policy() == Policy(Mode.BIND, NodeSet([1]))
    assert view.get_policy() == Policy(Mode.DEFAULT)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(Mode.BIND | ModeFlag.STATIC_NODES, NodeSet([1, 2])),
        Policy(Mode.INTERLEAVE | ModeFlag.RELATIVE_NODES, NodeSet([1, 5])),
        Policy(Mode.PREFERRED, NodeSet([2])),
        Policy(Mode.LOCAL),
    ],
)
def test_the_policy_before_is_set_again_exactly(model, policy):
    """Mode flags, and nodes as they were given, relative ones too; an exception passes through."""
    view = model.view
    view.set_policy(policy.mode, policy.nodes)
    seen = []

    def fails():
        with movepages.mempolicy(bind=0, machine=view):
            seen.append(view.get_policy())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert seen == [Policy(Mode.BIND, NodeSet([0]))]
    assert view.get_policy() == policy


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({}, ArgumentError, "give exactly one of bind"),
        ({"bind": 0, "local": True}, ArgumentError, "give exactly one of bind"),
        ({"bind": 0, "interleave": 1}, ArgumentError, "give exactly one of bind"),
        ({"bind": []}, ArgumentError, "there is no node given"),
        ({"bind": "1"}, ArgumentError, "nodes are numbers, not '1'"),
        ({"bind": [None]}, ArgumentError, "nodes are numbers"),
        ({"bind": 1.5}, ArgumentError, "nodes are numbers, not 1.5"),
        ({"bind": -1}, NodeSetError, "-1 is not a node number"),
        ({"interleave": [0, 4]}, NoSuchNodeError, "node 4 does not exist"),
        ({"preferred": [0, 3]}, OutsideCpusetError, "node 3 lies outside the cpuset"),
    ],
)
def test_bad_policies_change_nothing(model, asked, error, told):
    """A node that the kernel would leave out silently is an error, and the policy stays."""
    block = movepages.mempolicy(machine=model.view, **asked)
    with pytest.raises(error, match=told):
        block.__enter__()
    assert model.view.get_policy() == Policy(Mode.DEFAULT)


def test_a_kernel_that_does_not_know_a_policy():
    """Linux 2.6.18 has no weighted interleave: that is said, rather than an invalid argument."""
    from movepages.kernel.semantics import LINUX_2_6_18

    machine = SimulatedMachine("2 x 16M", semantics=LINUX_2_6_18)
    block = movepages.mempolicy(weighted=[0, 1], machine=machine)
    with pytest.raises(UnsupportedError, match="does not know weighted interleave"):
        block.__enter__()


def test_a_block_is_left_by_the_thread_that_entered_it(model):
    """Another thread would get the policy that is not its own: it is told so instead."""
    block = movepages.mempolicy(bind=1, machine=model.view)
    block.__enter__()
    caught = []

    def leave():
        try:
            block.__exit__(None, None, None)
        except MovePagesError as error:
            caught.append(str(error))

    other = threading.Thread(target=leave)
    other.start()
    other.join()
    assert len(caught) == 1
    assert "enter and leave it in one thread" in caught[0]
    assert model.view.get_policy().mode == Mode.BIND


@pytest.mark.host
def test_the_policy_is_the_thread_s_alone():
    """On this kernel another thread keeps its policy; the own one comes back with its flags."""
    before = calls.get_mempolicy()
    static = Policy(Mode.BIND | ModeFlag.STATIC_NODES, NodeSet([0]))
    seen = {}
    go, done = threading.Event(), threading.Event()

    def look():
        seen["before"] = calls.get_mempolicy()
        done.set()
        go.wait()
        seen["meanwhile"] = calls.get_mempolicy()

    other = threading.Thread(target=look)
    other.start()
    done.wait()
    try:
        calls.set_mempolicy(static.mode, static.nodes)
        with movepages.mempolicy(interleave=0):
            seen["inside"] = calls.get_mempolicy()
            go.set()
            other.join()
        assert calls.get_mempolicy() == static
    finally:
        calls.set_mempolicy(before.mode, before.nodes)
        go.set()
    assert seen["meanwhile"] == seen["before"]
    assert seen["inside"] == Policy(Mode.INTERLEAVE, NodeSet([0]))
