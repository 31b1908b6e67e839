from __future__ import annotations

import copy
import ctypes
import os
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from movepages.abi import MAX_NUMNODES, Mode, PolicyQuery
from movepages.errors import NodeSetError
from movepages.linux import syscalls
from movepages.linux.nodes import read_has_memory
from movepages.nodeset import NodeSet

HIGHEST = 65535
"""The highest node number that is taken: no kernel can be built for as many."""

NO_NUMBERS = (
    "x",
    "1.0",
    "0x",
    "08",
    "0o7",
    "0b1",
    "1_0",
    "1e1",
    "\u0663",
    "\uff10",
    "ALL",
    "node0",
)
TOO_LARGE = (str(HIGHEST + 1), "0x10000", "0200000", "9" * 5000, "0-99999999999")
NO_LISTS = ("0-", "-1", "-", "0,,1", ",", "0,", "1-2-3", "0 1", "0;1", "\0", "0\n1", "!", "+")
MISPLACED = ("0,+1", "1-+3", "0,!1", "++0", "!!0", "+!0")

node_sets = st.frozensets(st.integers(0, HIGHEST), max_size=20)
small_sets = st.frozensets(st.integers(0, 200), max_size=40)


@given(node_sets)
def test_what_is_written_can_be_read(nodes):
    """The text of a set names the same set, and has no blank in it."""
    text = str(NodeSet(nodes))
    assert NodeSet.parse(text) == nodes
    assert " " not in text


@given(small_sets)
def test_text_is_the_shortest_rising_list(nodes):
    """The text is a list as the kernel prints it: rising, neighbours joined."""
    ranges = [tuple(map(int, part.split("-"))) for part in str(NodeSet(nodes)).split(",") if part]
    flat = [end for ends in ranges for end in (ends[0], ends[-1])]
    assert flat == sorted(flat)
    assert all(following[0] > before[-1] + 1 for before, following in pairwise(ranges))
    assert sum(ends[-1] - ends[0] + 1 for ends in ranges) == len(nodes)


@given(node_sets, st.sampled_from([8, 32, 64]))
def test_words_hold_the_same_set(nodes, word_bits):
    """The words of a mask are those of its bits, lowest first, and make the same set again."""
    words = NodeSet(nodes).to_words(word_bits)
    assert all(0 <= word < 1 << word_bits for word in words)
    assert {
        index * word_bits + bit
        for index, word in enumerate(words)
        for bit in range(word_bits)
        if word >> bit & 1
    } == nodes
    assert NodeSet.from_words(words, word_bits) == nodes


@given(node_sets)
def test_bits_hold_the_same_set(nodes):
    """Bit N of the integer stands for node N, both ways."""
    bits = sum(1 << node for node in nodes)
    assert NodeSet(nodes).bits == bits
    assert NodeSet.from_bits(bits) == nodes


@pytest.mark.parametrize(
    ("nodes", "words", "maxnode"),
    [
        ((), (0,), 65),
        ((0,), (1,), 65),
        ((63,), (1 << 63,), 65),
        ((64,), (0, 1), 129),
        ((0, 127), (1, 1 << 63), 129),
        ((128,), (0, 0, 1), 193),
    ],
)
def test_maxnode_is_one_more_than_the_bits(nodes, words, maxnode):
    """The kernel reads maxnode - 1 bits, so maxnode is one more than the mask has."""
    assert NodeSet(nodes).to_words() == words
    assert NodeSet.maxnode(words) == maxnode


def test_words_of_32_bits_are_counted_in_32_bits():
    """A 32-bit process has half the bits in a word."""
    words = NodeSet([32]).to_words(32)
    assert words == (0, 1)
    assert NodeSet.maxnode(words, 32) == 65


def test_a_mask_can_be_asked_to_be_wider():
    """Two masks of one call must be of one width; zeros are added on top."""
    assert NodeSet([1]).to_words(64, 3) == (2, 0, 0)
    assert NodeSet([64]).to_words(64, 1) == (0, 1)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", set()),
        ("  ", set()),
        ("0", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("3-3", {3}),
        ("0,2", {0, 2}),
        ("2,0", {0, 2}),
        ("0-1,1-2", {0, 1, 2}),
        ("0-1,3,5-6", {0, 1, 3, 5, 6}),
        (" 0 , 2 - 3 ", {0, 2, 3}),
        ("010", {8}),
        ("00", {0}),
        ("0x10", {16}),
        ("0X1f", {31}),
        ("0x1-0x3", {1, 2, 3}),
        ("07-010", {7, 8}),
        (str(HIGHEST), {HIGHEST}),
        ("0xffff", {HIGHEST}),
        ("0177777", {HIGHEST}),
    ],
)
def test_plain_lists_are_read_as_numactl_reads_them(text, nodes):
    """Numbers, ranges and lists, decimal, hexadecimal or octal, in any order, may have blanks."""
    assert NodeSet.parse(text) == nodes


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("all", {1, 3, 5}),
        ("!1", {3, 5}),
        ("!1,3", {5}),
        ("!3-5", {1}),
        ("!all", set()),
        ("!0", {1, 3, 5}),
        ("+0", {1}),
        ("+0-1", {1, 3}),
        ("+0,2", {1, 5}),
        ("+2", {5}),
        ("!+0", {3, 5}),
        ("!+0-1", {5}),
        ("+all", {1, 3, 5}),
        ("5,all", {1, 3, 5}),
        ("all,5", {1, 3, 5}),
        ("+0,all", {1, 3, 5}),
        ("3,5", {3, 5}),
    ],
)
def test_words_and_signs_refer_to_the_cpuset(text, nodes):
    """`all`, `!` and `+` mean the allowed nodes, here 1, 3 and 5 of a machine with 0 to 7."""
    parsed = NodeSet.parse(text, allowed={1, 3, 5}, existing=set(range(8)))
    assert parsed == nodes


def test_without_a_cpuset_words_and_signs_refer_to_the_machine():
    """Where only the machine's nodes are given, they are what may be used."""
    assert NodeSet.parse("all", existing={0, 4}) == {0, 4}
    assert NodeSet.parse("!4", existing={0, 4}) == {0}
    assert NodeSet.parse("+1", existing={0, 4}) == {4}


@pytest.mark.parametrize("text", ["all", "!0", "+0", "!+0", "0,all", "!", "+"])
def test_words_and_signs_need_the_machine(text):
    """Without any nodes to refer to, they mean nothing and are refused."""
    with pytest.raises(NodeSetError, match="needs the machine's nodes"):
        NodeSet.parse(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("same", "same"),
        ("0,same", "same"),
        ("netdev:eth0", "netdev:"),
        ("ip:10.0.0.1", "ip:"),
        ("file:/var/lib/all", "file:"),
        ("block:sda", "block:"),
        ("pci:0000:00:02.0", "pci:"),
        ("!pci:00:02", "pci:"),
    ],
)
def test_what_numactl_looks_up_is_refused_by_its_name(text, word):
    """`same` and the nodes of devices are refused by name, and the remedy is said."""
    with pytest.raises(
        NodeSetError, match=f"'{word}' .* is not supported; name the node"
    ) as caught:
        NodeSet.parse(text, existing={0})
    assert caught.value.text == text


@pytest.mark.parametrize("text", [*NO_NUMBERS, *TOO_LARGE, *NO_LISTS, *MISPLACED])
def test_garbage_is_refused(text):
    """What is no list of nodes is refused, and the error carries it, with examples of the right."""
    with pytest.raises(NodeSetError, match="is not a node; write nodes like 0-3") as caught:
        NodeSet.parse(text, existing=set(range(4)))
    assert caught.value.text == text


@pytest.mark.parametrize("text", ["3-1", "0,0x10-8", "1-0"])
def test_a_reversed_range_is_refused(text):
    """A range that ends before it begins is named as such."""
    with pytest.raises(NodeSetError, match="reversed"):
        NodeSet.parse(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("7", r"node 7 in '7' does not exist on this machine \(0-3\)"),
        ("0-4", r"node 4 in '0-4' does not exist on this machine \(0-3\)"),
        ("!4", r"node 4 in '!4' does not exist on this machine \(0-3\)"),
        ("2", r"node 2 in '2' lies outside the allowed nodes \(0-1\)"),
        ("0-3", r"node 2 in '0-3' lies outside the allowed nodes \(0-1\)"),
        ("+2", r"there is no \+2, only 2 nodes are allowed"),
        ("!+2", r"there is no \+2, only 2 nodes are allowed"),
    ],
)
def test_nodes_that_may_not_be_used_are_named(text, problem):
    """A node that does not exist or is not allowed is named, and so are those that are."""
    with pytest.raises(NodeSetError, match=problem):
        NodeSet.parse(text, allowed={0, 1}, existing={0, 1, 2, 3})


def test_the_last_allowed_node_is_taken():
    """The borders of what exists and what is allowed belong to it."""
    assert NodeSet.parse("3", allowed={3}, existing={0, 3}) == {3}
    assert NodeSet.parse("+0", allowed={3}) == {3}


def test_an_empty_machine_has_no_nodes_to_name():
    """With an empty cpuset every node is a stranger, and `all` is nobody."""
    assert NodeSet.parse("all", allowed=set()) == set()
    with pytest.raises(NodeSetError, match=r"outside the allowed nodes \(none\)"):
        NodeSet.parse("0", allowed=set())


@given(st.text(max_size=12))
def test_any_text_is_a_set_or_one_kind_of_error(text):
    """Whatever is typed, the answer is a set of existing nodes or a NodeSetError."""
    try:
        nodes = NodeSet.parse(text, existing={0, 1})
    except NodeSetError as error:
        assert error.text  # noqa: PT017 - either outcome is right
    else:
        assert nodes <= {0, 1}


@pytest.mark.parametrize("node", [-1, HIGHEST + 1, 2**70])
def test_numbers_beyond_the_limits_are_refused(node):
    """Node numbers go from 0 to 65535."""
    with pytest.raises(NodeSetError, match="not a node number"):
        NodeSet([node])


@pytest.mark.parametrize("bits", [-1, 1 << HIGHEST + 1], ids=["negative", "node 65536"])
def test_bits_beyond_the_limits_are_refused(bits):
    """Bits that stand for no node are refused, and so is a negative number of endless bits."""
    with pytest.raises(NodeSetError, match="0 to 65535"):
        NodeSet.from_bits(bits)


def test_the_limits_themselves_are_nodes():
    """Nodes 0 and 65535 are in a set like any other."""
    assert list(NodeSet([HIGHEST, 0])) == [0, HIGHEST]
    assert NodeSet.from_bits(1 << HIGHEST) == {HIGHEST}


@pytest.mark.parametrize("nodes", [[1.0], ["1"], [None]])
def test_only_integers_are_nodes(nodes):
    """A float or a text is a TypeError, as Python's own shifts say."""
    with pytest.raises(TypeError):
        NodeSet(nodes)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint64])
def test_numpy_integers_are_nodes(kind):
    """NumPy's integers are taken as numbers of any size, and are found again."""
    nodes = np.array([1, 70, 127], dtype=kind)
    assert NodeSet(nodes) == {1, 70, 127}
    assert nodes[1] in NodeSet([70])


@given(small_sets, small_sets)
def test_it_is_a_set(left, right):
    """Operators, comparisons, order and length are those of a set, also against other sets."""
    ours = NodeSet(left)
    assert ours | right == left | right
    assert ours & NodeSet(right) == left & right
    assert ours - right == left - right
    assert ours ^ right == left ^ right
    assert (ours <= NodeSet(right)) == (left <= right)
    assert ours.isdisjoint(right) == left.isdisjoint(right)
    assert list(ours) == sorted(left)
    assert len(ours) == len(left)
    assert bool(ours) == bool(left)
    assert isinstance(ours | right, NodeSet)


@given(small_sets)
def test_equal_sets_have_equal_hashes(nodes):
    """It equals the frozenset of the same nodes and so hashes as that does."""
    assert NodeSet(nodes) == nodes
    assert hash(NodeSet(nodes)) == hash(nodes)
    assert {NodeSet(nodes): 1}[frozenset(nodes)] == 1


@pytest.mark.parametrize("stranger", [-1, 2, 1.5, "1", None, (1,)])
def test_what_is_not_in_it_is_not_in_it(stranger):
    """Membership can be asked of anything."""
    assert stranger not in NodeSet([0, 1])


def test_it_cannot_be_changed():
    """Attributes cannot be set, nor new ones made."""
    nodes = NodeSet([1])
    with pytest.raises(AttributeError, match="immutable"):
        nodes._bits = 0
    with pytest.raises(AttributeError, match="immutable"):
        nodes.name = "x"
    assert nodes == {1}


@given(small_sets)
def test_it_can_be_copied_and_pickled(nodes):
    """Copies and pickles, which multiprocessing makes, are equal sets."""
    ours = NodeSet(nodes)
    assert copy.copy(ours) == ours
    assert copy.deepcopy(ours) == ours
    assert pickle.loads(pickle.dumps(ours)) == ours  # noqa: S301 - made here


@given(small_sets)
def test_its_representation_is_an_expression_that_parse_takes(nodes):
    """The representation holds the text that parse reads back."""
    text = repr(NodeSet(nodes))
    assert text.startswith("NodeSet('")
    assert NodeSet.parse(text.removeprefix("NodeSet('").removesuffix("')")) == nodes


@pytest.mark.host
@pytest.mark.parametrize("bits", [MAX_NUMNODES, 2 * MAX_NUMNODES, 16 * MAX_NUMNODES])
def test_the_kernels_own_mask_is_read(bits):
    """A mask that get_mempolicy(2) fills, of any width, is the set that sysfs lists."""
    mask = np.full(bits // 64, 2**64 - 1, dtype=np.uint64)
    ret = syscalls.get_mempolicy(None, mask.ctypes.data, bits, None, PolicyQuery.MEMS_ALLOWED)
    assert ret == 0
    assert NodeSet.from_words(mask.tolist()) == read_has_memory()


@pytest.mark.host
def test_the_kernel_reads_maxnode_minus_one_bits():
    """With maxnode as the set gives it the kernel sees the top bit; with one less it does not."""
    top = NodeSet([0, 63])
    words = (ctypes.c_uint64 * 1)(*top.to_words())
    maxnode = NodeSet.maxnode(top.to_words())
    child = os.fork()
    if not child:
        answers = [
            syscalls.set_mempolicy(Mode.BIND | 1 << 15, ctypes.addressof(words), limit)
            for limit in (maxnode, maxnode - 1)
        ]
        seen = []
        for limit in (maxnode, maxnode - 1):
            syscalls.set_mempolicy(Mode.BIND | 1 << 15, ctypes.addressof(words), limit)
            mask = (ctypes.c_uint64 * 16)()
            syscalls.get_mempolicy(None, ctypes.addressof(mask), 1024, None, 0)
            seen.append(set(NodeSet.from_words(mask)))
        os._exit(0 if answers == [0, 0] and seen == [{0, 63}, {0}] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
