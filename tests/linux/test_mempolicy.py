"""Policies on the kernel of this machine; those of a thread are set in a forked child."""

from __future__ import annotations

import ctypes

import pytest
from guestkit.memory import unmap
from guestkit.pages import PAGE_BYTES

from movepages.abi import Errno, Mode, ModeFlag, MoveFlag
from movepages.errors import (
    BadAddressError,
    CallError,
    InvalidCallError,
    NoSuchProcessError,
    NotPermittedError,
)
from movepages.linux import filters, mempolicy, syscalls
from movepages.linux.nodes import read_has_memory
from movepages.nodeset import NodeSet
from movepages.values import Policy


@pytest.fixture
def home() -> int:
    """A node with memory."""
    return min(read_has_memory())


@pytest.fixture
def missing() -> int:
    """A node number without memory behind it."""
    return max(read_has_memory()) + 1


@pytest.fixture
def in_child(fork):
    """Return what calls a function in a forked child and returns its result or CallError."""

    def call(function):
        def body():
            try:
                yield function()
            except CallError as error:
                yield error

        return fork(body).step()

    return call


@pytest.mark.parametrize(
    ("nodes", "words", "maxnode"),
    [([], [0], 65), ([0, 2], [5], 65), ([63], [1 << 63], 65), ([64], [0, 1], 129)],
)
def test_a_mask_has_its_words_and_its_maxnode(nodes, words, maxnode):
    """The mask is uint64 words, lowest first, and maxnode one more than their bits."""
    mask, limit = mempolicy.mask_of(nodes)
    assert mask.tolist() == words
    assert mask.dtype == "uint64"
    assert limit == maxnode


@pytest.mark.host
def test_a_fresh_process_has_the_default_policy(in_child):
    """Once set to DEFAULT, no mode and no nodes are reported."""

    def reset():
        mempolicy.set_mempolicy(Mode.DEFAULT, [])
        return mempolicy.get_mempolicy()

    assert in_child(reset) == Policy(Mode.DEFAULT, NodeSet())


@pytest.mark.host
@pytest.mark.parametrize(
    ("mode", "with_nodes"),
    [
        (Mode.BIND, True),
        (Mode.PREFERRED, True),
        (Mode.INTERLEAVE, True),
        (Mode.LOCAL, False),
        (Mode.DEFAULT, False),
        (Mode.BIND | ModeFlag.STATIC_NODES, True),
        (Mode.INTERLEAVE | ModeFlag.STATIC_NODES, True),
    ],
)
def test_a_policy_that_is_set_is_reported(in_child, home, mode, with_nodes):
    """Mode, flags and nodes come back as they were set."""
    nodes = [home] if with_nodes else []

    def set_and_get():
        mempolicy.set_mempolicy(mode, nodes)
        return mempolicy.get_mempolicy()

    assert in_child(set_and_get) == Policy(int(mode), NodeSet(nodes))


@pytest.mark.host
def test_the_policy_of_a_range_is_its_own(memory, home, in_child):
    """A bound range has its own policy; those beside it keep that of the thread."""
    pages = memory.private(4)

    def bind_and_get():
        mempolicy.mbind(pages.start, 2 * PAGE_BYTES, Mode.BIND, [home], 0)
        return [mempolicy.get_mempolicy(int(address)) for address in pages.addresses]

    bound, plain = Policy(Mode.BIND, NodeSet([home])), Policy(Mode.DEFAULT, NodeSet())
    assert in_child(bind_and_get) == [bound, bound, plain, plain]


@pytest.mark.host
def test_asking_for_a_policy_touches_no_page(memory):
    """The policy at an address is found without faulting its page in."""
    pages = memory.private(1)
    before = pages.where()
    mempolicy.get_mempolicy(pages.start)
    assert pages.where() == before


@pytest.mark.host
def test_a_bound_range_allocates_on_its_node(memory, home, in_child):
    """Pages that are touched after mbind are on the node that it names."""
    pages = memory.private(4)

    def bind_and_touch():
        mempolicy.mbind(pages.start, pages.size_bytes, Mode.BIND, [home], MoveFlag.STRICT)
        return pages.touch().where()

    assert in_child(bind_and_touch) == f"{{{home}:4}}"


@pytest.mark.host
@pytest.mark.parametrize(
    ("mode", "nodes"),
    [
        (Mode.BIND, []),
        (Mode.INTERLEAVE, []),
        (Mode.DEFAULT, [0]),
        (Mode.LOCAL, [0]),
        (99, [0]),
        (-1, [0]),
        (2**32, []),
        (Mode.BIND | ModeFlag.STATIC_NODES | ModeFlag.RELATIVE_NODES, [0]),
        (Mode.BIND, [1000]),
    ],
)
def test_modes_and_nodes_that_do_not_fit_are_refused(mode, nodes):
    """The kernel's EINVAL becomes an error that says which modes need nodes."""
    with pytest.raises(InvalidCallError, match="bind and interleave need nodes") as caught:
        mempolicy.set_mempolicy(mode, nodes)
    assert caught.value.call == "set_mempolicy"
    assert caught.value.arguments == {"mode": mode}


@pytest.mark.host
def test_a_range_with_a_hole_is_refused(memory):
    """Binding across a hole, and asking in one, names the address that was given."""
    pages = memory.private(3)
    unmap(pages[1:2])
    with pytest.raises(BadAddressError, match="hole") as caught:
        mempolicy.mbind(pages.start, pages.size_bytes, Mode.BIND, [0], 0)
    assert caught.value.address == pages.start
    hole = int(pages.addresses[1])
    with pytest.raises(BadAddressError, match="hole") as caught:
        mempolicy.get_mempolicy(hole)
    assert caught.value.address == hole


@pytest.mark.host
@pytest.mark.parametrize(("offset", "flags"), [(1, 0), (0, MoveFlag.LAZY), (0, 16)])
def test_an_unaligned_start_and_unknown_flags_are_refused(memory, offset, flags):
    """A range starts at a page; LAZY is refused by every kernel."""
    pages = memory.private(2)
    with pytest.raises(InvalidCallError) as caught:
        mempolicy.mbind(pages.start + offset, PAGE_BYTES, Mode.DEFAULT, [], flags)
    assert caught.value.arguments == {"length_bytes": PAGE_BYTES, "mode": 0, "flags": flags}


@pytest.mark.host
def test_mbind_with_move_all_needs_a_right(memory, unprivileged, home):
    """Without CAP_SYS_NICE the error is a missing right, not a filter."""
    pages = memory.private(1)

    def bind():
        try:
            mempolicy.mbind(pages.start, PAGE_BYTES, Mode.BIND, [home], MoveFlag.MOVE_ALL)
        except CallError as error:
            return error

    refused = unprivileged(bind)
    assert type(refused) is NotPermittedError
    assert "CAP_SYS_NICE" in str(refused)


@pytest.mark.host
def test_migrating_to_where_the_pages_are_moves_nothing(home, in_child):
    """From a node to itself nothing stays behind; a source that does not exist has no pages."""
    assert in_child(lambda: mempolicy.migrate_pages(0, [home], [home])) == 0
    assert in_child(lambda: mempolicy.migrate_pages(0, [home, 200], [home])) == 0


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_migrating_leaves_out_targets_that_do_not_exist(home, in_child):
    """As long as one target is usable, root may name others as well."""
    assert in_child(lambda: mempolicy.migrate_pages(0, [home], [home, 200])) == 0


@pytest.mark.parametrize(
    ("old", "new", "maxnode"), [([0], [63], 65), ([64], [0], 129), ([], [128], 193)]
)
def test_both_masks_of_a_migration_have_one_width(monkeypatch, old, new, maxnode):
    """The kernel reads maxnode - 1 bits of both, so both are as wide as the wider one."""
    seen = []

    def kernel(_pid, limit, *pointers):
        words = ctypes.c_uint64 * (limit // 64)
        seen.append((limit, *(set(NodeSet.from_words(words.from_address(p))) for p in pointers)))
        return 0

    monkeypatch.setattr(syscalls, "migrate_pages", kernel)
    assert mempolicy.migrate_pages(0, old, new) == 0
    assert seen == [(maxnode, set(old), set(new))]


@pytest.mark.host
def test_migrating_from_nowhere_is_nothing_to_do(home):
    """Without nodes to move from the call is done at once."""
    assert mempolicy.migrate_pages(0, [], [home]) == 0


@pytest.mark.host
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("targets", [[], [900]])
def test_migrating_to_no_usable_node_is_refused(home, targets):
    """The error says that no target is usable, and carries both node sets as text."""
    with pytest.raises(InvalidCallError, match="no target node is usable") as caught:
        mempolicy.migrate_pages(0, [home], targets)
    assert caught.value.pid == 0
    assert caught.value.arguments == {"from_nodes": str(home), "to_nodes": str(NodeSet(targets))}


@pytest.mark.host
@pytest.mark.parametrize("pid", [-1, 2**31 - 1, 2**32])
def test_migrating_nobody_is_refused(home, pid):
    """A pid that nobody has, also one that would be cut to the caller's 0, is no process."""
    with pytest.raises(NoSuchProcessError) as caught:
        mempolicy.migrate_pages(pid, [home], [home])
    assert caught.value.pid == pid


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_migrating_another_users_process_is_refused(home, fork, unprivileged):
    """A process of root is not an ordinary user's to move."""
    other = fork().pid

    def migrate():
        try:
            mempolicy.migrate_pages(other, [home], [home])
        except CallError as error:
            return error

    refused = unprivileged(migrate)
    assert type(refused) is NotPermittedError
    assert refused.pid == other


@pytest.mark.host
def test_a_home_node_needs_a_policy_to_belong_to(memory, home, in_child):
    """It is set on a bound range; one without a policy, or with another, is refused."""
    if filters.refusal("set_mempolicy_home_node"):
        pytest.skip("needs set_mempolicy_home_node (Linux 5.17)")
    bound, plain, preferred = (memory.private(1) for _ in range(3))

    def set_all():
        mempolicy.mbind(bound.start, PAGE_BYTES, Mode.BIND, [home], 0)
        mempolicy.mbind(preferred.start, PAGE_BYTES, Mode.PREFERRED, [home], 0)
        answers = []
        for pages, node in ((bound, home), (plain, home), (preferred, home), (bound, 1000)):
            try:
                answers.append(mempolicy.set_home_node(pages.start, PAGE_BYTES, node))
            except CallError as error:
                answers.append(error.errno)
        return answers

    assert in_child(set_all) == [None, Errno.ENOENT, Errno.EOPNOTSUPP, Errno.EINVAL]


@pytest.mark.parametrize("nodes_of_kernel", [64, 1024, 1025, 4096, 65536])
def test_a_kernel_of_any_number_of_nodes_gets_room_for_them(monkeypatch, nodes_of_kernel):
    """EINVAL may mean that the mask is too narrow for the kernel: it is asked again with more."""
    asked = []

    def kernel(_mode, _mask, bits, _address, _flags):
        asked.append(bits)
        return 0 if bits >= nodes_of_kernel else -Errno.EINVAL

    monkeypatch.setattr(syscalls, "get_mempolicy", kernel)
    assert mempolicy.get_mempolicy() == Policy(0, NodeSet())
    assert asked[-1] >= nodes_of_kernel
    assert len(asked) <= 7


def test_a_kernel_that_calls_it_invalid_for_good_is_believed(monkeypatch):
    """When no mask is wide enough, EINVAL means something else and is raised."""
    monkeypatch.setattr(syscalls, "get_mempolicy", lambda *_: -Errno.EINVAL)
    with pytest.raises(InvalidCallError):
        mempolicy.get_mempolicy()
