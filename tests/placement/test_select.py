"""Selections: what they mean on a machine, how they combine, and that their text reads back."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from movepages.abi import Mode
from movepages.errors import ArgumentError, MovePagesError, NodeSetError
from movepages.kernel import SimulatedMachine
from movepages.kernel.address_space import Prot
from movepages.kernel.mappings import Backing
from movepages.nodeset import NodeSet
from movepages.placement import select
from movepages.values import Mapping

PAGE = 4096
HUGE = 2 << 20


class Named:
    """A machine of the model whose mappings have the names that Linux would give them."""

    def __init__(self, machine, names):
        """Name mappings by their first address."""
        self._machine, self._names = machine, names
        self.asked = []

    def __getattr__(self, name):
        """Answer all else as the model does."""
        return getattr(self._machine, name)

    def mappings(self, pid):
        """Return the mappings, with names."""
        from dataclasses import replace

        found = self._machine.mappings(pid)
        return [replace(each, path=self._names.get(each.start, each.path)) for each in found]

    def locate(self, pid, ranges=None):
        """Remember what was asked for."""
        self.asked.append(ranges)
        return self._machine.locate(pid, ranges)


@pytest.fixture(scope="module")
def process():
    """Return a machine, a process with memory of every kind, and where each kind is."""
    machine = SimulatedMachine("3 x 256M")
    task = machine.spawn()
    at = {}
    at["heap"] = task.mmap(6)
    at["anon"] = task.mmap(10, prot=Prot.READ | Prot.WRITE)
    at["library"] = task.mmap(5, file=machine.file("/usr/lib/libc.so.6", 5, Backing.BUFFERS))
    at["shm"] = task.mmap(4, shared=True)
    at["bound"] = task.mmap(3)
    task.mbind(at["bound"], 3, Mode.BIND, [2])
    at["stack"] = task.mmap(2)
    at["thp"] = task.mmap(1024)
    task.madvise(at["thp"], 1024, "hugepage")
    machine.resize_pool(0, 2)
    at["hugetlb"] = task.mmap(512, huge=True)
    for kind, pages in [("heap", 6), ("anon", 8), ("shm", 4), ("bound", 3), ("stack", 2)]:
        task.write(at[kind], pages)
    task.read(at["library"], 5)
    task.write(at["thp"], 1024)
    task.write(at["hugetlb"], 512)
    task.move_pages(0, task.addresses(at["anon"], 4), [1] * 4, 2)
    names = {at["heap"]: "[heap]", at["stack"]: "[stack]"}
    return Named(machine, names), task, at


def selected(process, selection):
    """Return the bytes selected by kind of memory, and check that no page is in two runs."""
    machine, task, at = process
    placement = select.locate(machine, task.pid, selection)
    addresses = placement.page_runs().addresses()
    assert len(set(addresses.tolist())) == len(addresses)
    kinds = sorted(at, key=at.get)
    starts = np.array([at[kind] for kind in kinds], dtype=np.uint64)
    sizes = np.repeat(placement.page_size_bytes, placement.pages)
    found: dict[str, int] = {}
    owner = np.searchsorted(starts, addresses, side="right") - 1
    for kind, size in zip(owner.tolist(), sizes.tolist(), strict=True):
        found[kinds[kind]] = found.get(kinds[kind], 0) + size
    return found


def test_each_word_selects_its_kind(process):
    """Every word means the memory that it names, and nothing else."""
    _, _, at = process
    huge_thp = {"thp": HUGE} if at["thp"] % HUGE else {"thp": 2 * HUGE}
    assert selected(process, select.heap()) == {"heap": 6 * PAGE}
    assert selected(process, select.stack()) == {"stack": 2 * PAGE}
    assert selected(process, select.shm()) == {"shm": 4 * PAGE}
    assert selected(process, select.hugetlb()) == {"hugetlb": HUGE}
    assert selected(process, select.thp()) == huge_thp
    assert selected(process, select.policy("bind")) == {"bound": 3 * PAGE}
    for glob in ("*.so*", "libc.so.6", "/usr/lib/*"):
        assert selected(process, select.file(glob)) == {"library": 5 * PAGE}
    assert selected(process, select.file("lib/*")) == {}
    assert set(selected(process, select.anon())) == {"heap", "anon", "stack", "bound", "thp"}
    assert set(selected(process, select.larger_than(10 * PAGE))) == {"thp", "hugetlb"}
    assert set(selected(process, select.larger_than(10 * PAGE - 1))) == {"anon", "thp", "hugetlb"}
    assert "library" not in selected(process, ~select.file("*"))


def test_pages_on_a_node(process):
    """on_node looks at pages, not at mappings: the part of one that is there."""
    assert selected(process, select.on_node(1)) == {"anon": 4 * PAGE}
    assert selected(process, select.anon() & select.on_node(1, 2)) == {
        "anon": 4 * PAGE,
        "bound": 3 * PAGE,
    }
    both = selected(process, select.on_node([0, 1, 2]))
    assert both == selected(process, select.everything())


def test_a_range_takes_every_page_that_it_touches(process):
    """A byte of a page is enough, one before it is not; a huge page is taken whole."""
    machine, task, at = process
    first = at["heap"]
    two = select.within(first + PAGE - 1, first + PAGE + 1)
    assert select.locate(machine, task.pid, two).page_runs().addresses().tolist() == [
        first,
        first + PAGE,
    ]
    one = select.within(first + PAGE, first + PAGE + 1)
    assert selected(process, one) == {"heap": PAGE}
    inner = at["hugetlb"] + 5 * PAGE
    assert selected(process, select.within(inner, inner + 1)) == {"hugetlb": HUGE}
    rest = selected(process, select.hugetlb() & ~select.within(inner, inner + 1))
    assert rest == {}
    assert selected(process, select.within(0, PAGE)) == {}


def test_only_what_can_be_meant_is_asked_for(process):
    """The pages of mappings that no page can be selected of are not looked for."""
    machine, task, at = process
    machine.asked.clear()
    select.locate(machine, task.pid, select.heap() & select.on_node(0))
    assert machine.asked.pop() == [(at["heap"], at["heap"] + 6 * PAGE)]
    select.locate(machine, task.pid, select.within(at["heap"], at["heap"] + 5) & ~select.thp())
    assert machine.asked.pop() == [(at["heap"], at["heap"] + 5)]
    select.locate(machine, task.pid, ~(select.on_node(0) & select.heap()))
    assert machine.asked.pop() is None, "everything may be meant"
    select.locate(machine, task.pid, select.file("nowhere"))
    assert not machine.asked


words = st.sampled_from(
    [
        select.everything(),
        select.heap(),
        select.stack(),
        select.anon(),
        select.shm(),
        select.hugetlb(),
        select.thp(),
        select.writable(),
        select.file("*.so*"),
        select.file('it\'s "a" \\file, (1)\n\x1b \udcff'),
        select.policy("weighted-interleave"),
        select.policy("bind"),
        select.larger_than(1 << 20),
        select.larger_than(4097),
        select.larger_than(1536 << 10),
        select.larger_than(0),
        select.on_node(0),
        select.on_node(NodeSet([0, 2, 3])),
        select.within(0x7F0000000000, 0x7F0000400000),
        select.within(0, 1 << 63),
    ]
)
expressions = st.recursive(
    words,
    lambda inner: st.one_of(
        inner.map(lambda one: ~one),
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
    ),
    max_leaves=12,
)


@given(expressions)
def test_the_text_of_a_selection_reads_back(selection):
    """What is printed is accepted, and is the same selection."""
    assert select.parse(str(selection)) == selection


@settings(max_examples=60)
@given(one=expressions, other=expressions)
def test_selections_combine_as_sets_do(process, one, other):
    """And, or and not are those of sets of pages, whatever the words."""
    machine, task, _ = process

    def pages(selection):
        found = select.locate(machine, task.pid, selection)
        return set(found.page_runs().addresses().tolist())

    everything = pages(select.everything())
    assert pages(one & other) == pages(one) & pages(other)
    assert pages(one | other) == pages(one) | pages(other)
    assert pages(~one) == everything - pages(one)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("anon", select.anon()),
        (" anon ( ) ", select.anon()),
        ("anon&on_node(0)|thp", (select.anon() & select.on_node(0)) | select.thp()),
        ("anon & (on_node(0-2) | thp)", select.anon() & (select.on_node(0, 1, 2) | select.thp())),
        ("~~heap", ~~select.heap()),
        ("file(*.so)", select.file("*.so")),
        ('file("*.so")', select.file("*.so")),
        ("larger_than(1.5M)", select.larger_than(1536 << 10)),
        ("within(1000, 0x2000)", select.within(0x1000, 0x2000)),
        ("on_node('0,2')", select.on_node(0, 2)),
    ],
)
def test_what_a_person_would_write_is_read(text, same):
    """Blanks, quotes and empty parentheses are a matter of taste; `&` binds closer than `|`."""
    assert select.parse(text) == same


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it ends too early"),
        ("anon &", "it ends too early"),
        ("& anon", "'&' selects nothing"),
        ("anon heap", "'heap' is not expected there"),
        ("(anon", "')' is missing"),
        ("anon)", "')' is not expected there"),
        ("heep", "'heep' selects nothing"),
        ("'heap'", "'heap' selects nothing"),
        ("file", "file takes 1 argument"),
        ("file()", "file takes 1 argument"),
        ("file(", "an argument is missing"),
        ("file('a' 'b')", "',' is missing"),
        ("file(a,)", "an argument is missing"),
        ("heap(1)", "heap takes no arguments"),
        ("within(1000)", "within takes 2 arguments"),
        ("within(2000, 1000)", "ends before it starts"),
        ("within(1000, 1000)", "is empty"),
        ("within(zz, 1000)", "'zz' is not an address"),
        ("on_node()", "on_node takes 1 argument"),
        ("on_node('')", "no page is on no node"),
        ("on_node(one)", "'one' in 'one' is not a node"),
        ("larger_than(4X)", "'4X' is not a size"),
        ("larger_than(-1)", "'-1' is not a size"),
        ("policy(binding)", "'binding' is not a memory policy"),
        ("file('')", "an empty pattern matches no file"),
        ("file('a", "cannot be read"),
        ("~" * 60 + "heap", "nested more than 50 deep"),
        ("(" * 5000 + "heap", "nested more than 50 deep"),
    ],
)
def test_what_cannot_be_read_is_told(text, told):
    """Bad text is an error of ours that says what is wrong."""
    with pytest.raises(MovePagesError) as refused:
        select.parse(text)
    assert told in str(refused.value)


def test_nodes_of_a_machine():
    """Where the nodes are known, all and all but some can be said, and a stranger is refused."""
    assert select.parse("on_node(!0)", existing={0, 2, 5}) == select.on_node(2, 5)
    assert select.parse("~on_node(all)", existing={0, 2}) == ~select.on_node(0, 2)
    with pytest.raises(NodeSetError, match="node 1 in '1' does not exist"):
        select.parse("anon & on_node(1)", existing={0, 2})
    with pytest.raises(NodeSetError, match="needs the machine's nodes"):
        select.parse("on_node(all)")


@given(st.text(alphabet="anohep_fil&|~()'\"\\, 0*\n", max_size=30))
def test_any_text_is_read_or_refused(text):
    """No text leads to anything but a selection or an error of ours."""
    with suppress(MovePagesError):
        selection = select.parse(text)
        assert select.parse(str(selection)) == selection


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ("bind=static:0-1", "bind"),
        ("bind:0", "membind"),
        ("prefer (many):0-1", "preferred-many"),
        ("prefer:1", "prefer"),
        ("weighted interleave:0-2", "weighted-interleave"),
        ("interleave:0-2", "interleave"),
        ("default", "default"),
        ("local", "local"),
    ],
)
def test_policies_go_by_the_kernels_word(policy, word):
    """numa_maps(5) writes a mode, flags and nodes; the mode is what counts."""
    others = {"bind", "prefer", "preferred-many", "weighted-interleave", "interleave", "local"}
    mapping = Mapping(0, PAGE, policy=policy)
    assert select.policy(word).may_select(mapping)
    same = {"membind": "bind", "default": "default"}.get(word, word)
    assert not any(select.policy(o).may_select(mapping) for o in others - {same})


@pytest.mark.parametrize(
    "make",
    [
        select.on_node,
        lambda: select.file(""),
        lambda: select.policy("x"),
        lambda: select.larger_than(-1),
        lambda: select.within(5, 5),
        lambda: select.within(-1, 5),
        lambda: select.within(0, (1 << 64) + 1),
    ],
)
def test_bad_arguments_are_refused(make):
    """In Python the same is refused as in text."""
    with pytest.raises(ArgumentError):
        make()
