from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux.maps import read_maps
from movepages.linux.numa_maps import (
    NumaMapsLine,
    parse_numa_maps,
    read_hugetlb_sizes,
    read_numa_maps,
)

NUMA_MAPS = Path("numa_maps")


def parse_one(line: str) -> NumaMapsLine:
    """Parse a file of one line."""
    (parsed,) = parse_numa_maps(f"{line}\n", NUMA_MAPS)
    return parsed


# Lines as Linux 6.12 printed them, on four nodes.
def test_anonymous_memory():
    """Counters are read by name, nodes by number; what is left out follows from the nodes."""
    line = parse_one(
        "7f12a4000000 default anon=64 dirty=64 active=0 N0=16 N1=16 N2=16 N3=16 kernelpagesize_kB=4"
    )
    assert line == NumaMapsLine(
        start=0x7F12A4000000,
        policy="default",
        name="",
        huge=False,
        pages_by_node={0: 16, 1: 16, 2: 16, 3: 16},
        page_size_kib=4,
        anon=64,
        dirty=64,
        mapped=64,
        mapmax=1,
        swapcache=0,
        active=0,
        writeback=0,
    )


def test_hugetlb_memory_is_counted_in_huge_pages():
    """`huge` marks the line, the name is unescaped, and the page size is that of the pool."""
    line = parse_one(
        r"7f0000000000 default file=/anon_hugepage\040(deleted) huge anon=4 dirty=4 N1=4"
        " kernelpagesize_kB=2048"
    )
    assert line.huge
    assert line.name == "/anon_hugepage (deleted)"
    assert (line.pages_by_node, line.page_size_kib) == ({1: 4}, 2048)


def test_every_counter():
    """A line that has all counters gives each of them as it stands."""
    line = parse_one(
        "7f00 default file=/x anon=1 dirty=2 mapped=3 mapmax=4 swapcache=5 active=6 writeback=7"
        " N0=8 N1023=9 kernelpagesize_kB=64"
    )
    assert line[6:] == (1, 2, 3, 4, 5, 6, 7)
    assert (line.pages_by_node, line.page_size_kib) == ({0: 8, 1023: 9}, 64)


@pytest.mark.parametrize("word", ["heap", "stack"])
def test_heap_and_stack(word):
    """Heap and stack are named by a bare word."""
    assert parse_one(f"7f00 default {word} anon=1 N0=1 kernelpagesize_kB=4").name == word


def test_mapping_without_pages_has_no_counters():
    """A mapping with nothing resident stops before the counters; each such line is its own."""
    first, second = parse_numa_maps("1000 default\n2000 bind:1 file=/x huge\n", NUMA_MAPS)
    assert (first.pages_by_node, first.mapped, first.active, first.page_size_kib) == ({}, 0, 0, 0)
    assert (second.policy, second.name, second.huge) == ("bind:1", "/x", True)


@pytest.mark.parametrize(
    "policy",
    [
        "default",
        "local",
        "prefer:3",
        "prefer=static:1",
        "prefer=relative:1",
        "bind:0-3,5",
        "bind=static:0-1",
        "bind=balancing:0-1",
        "bind=static|balancing:0-1",
        "interleave:0-1",
        "prefer (many):0-1",
        "prefer (many)=static:0-1",
        "weighted interleave:0-1",
        "weighted interleave=relative:0,2",
    ],
)
@pytest.mark.parametrize("rest", ["", " heap", " file=/x mapped=1 N0=1 kernelpagesize_kB=4"])
def test_policies_are_kept_in_the_kernels_wording(policy, rest):
    """Policies with blanks, flags and node lists are told from the fields behind (mpol_to_str)."""
    line = parse_one(f"7f00 {policy}{rest}")
    assert line.policy == policy
    assert line.pages_by_node == ({0: 1} if "N0" in rest else {})


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        (r"/sp\040ace", "/sp ace"),
        (r"/tab\011new\012line", "/tab\tnew\nline"),
        (r"/equals\075sign", "/equals=sign"),
        (r"/back\134slash\101", r"/back\134slash\101"),
        ("/\x0b\x0c\r\x1c\x85\u2028", "/\x0b\x0c\r\x1c\x85\u2028"),
        ("/\udcff", "/\udcff"),
    ],
)
def test_names_are_unescaped(printed, name):
    r"""Blank, tab, new line and = are octal (seq_path with "\n\t= "); the backslash is not."""
    line = parse_one(f"7f00 default file={printed} mapped=1 N0=1 kernelpagesize_kB=4")
    assert line.name == name
    assert line.pages_by_node == {0: 1}


def test_fields_of_later_kernels_are_passed_over():
    """A key=value that is not known yet does not hide the others."""
    line = parse_one("7f00 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4 colour=blue weight=3")
    assert line.pages_by_node == {0: 1}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("", "start"),
        ("7f00", "start"),
        ("xyz default", "start"),
        ("7f00 default anon=x", "anon"),
        ("7f00 default anon=", "anon"),
        ("7f00 default anon", "anon"),
        ("7f00 default dirty=-1", "dirty"),
        ("7f00 default mapped=1.5", "mapped"),
        ("7f00 default mapmax=1_0", "mapmax"),
        ("7f00 default N0=", "N0"),
        ("7f00 default N0=many", "N0"),
        ("7f00 default N1024=1", "N1024"),
        ("7f00 default kernelpagesize_kB=4k", "kernelpagesize_kB"),
        ("7f00 default tiny", "tiny"),
        ("7f00 default =1", ""),
        ("7f00 default  N0=1", ""),
        ("7f00 prefer many N0=1", "many"),
    ],
)
def test_malformed_line_is_named(line, field):
    """A line that no kernel prints is refused with path, number of the line and field."""
    with pytest.raises(MalformedError) as caught:
        parse_numa_maps(f"1000 default\n{line}\n2000 default\n", NUMA_MAPS)
    assert (caught.value.path, caught.value.line, caught.value.field) == (NUMA_MAPS, 2, field)


def test_file_that_is_cut_short_is_refused():
    """The kernel ends every line; a count that is cut in two is not passed off as whole."""
    with pytest.raises(MalformedError, match="line 2: line: the file is cut short"):
        parse_numa_maps("1000 default\n2000 default anon=12", NUMA_MAPS)


def test_mappings_that_grew_together_while_they_were_read_count_once():
    """The kernel prints a mapping again that took in those before it: the newest line stands."""
    text = "1000 default anon=1 N0=1\n4000 default anon=1 N0=1\n5000 default anon=2 N0=2\n"
    again = parse_numa_maps(f"{text}4000 default anon=9 N0=9\nf000 default\n", NUMA_MAPS)
    assert [(line.start, line.anon) for line in again] == [(0x1000, 1), (0x4000, 9), (0xF000, 0)]
    lower = parse_numa_maps(f"{text}3000 default anon=9 N0=9\n", NUMA_MAPS)
    assert [(line.start, line.anon) for line in lower] == [(0x1000, 1), (0x3000, 9)]


def test_hundred_thousand_lines():
    """A file of a hundred thousand lines is read whole, in order."""
    text = "".join(
        f"{page * 0x2000:x} default anon=1 dirty=1 active=0 N{page % 4}=1 kernelpagesize_kB=4\n"
        for page in range(100_000)
    )
    lines = parse_numa_maps(text, NUMA_MAPS)
    assert len(lines) == 100_000
    assert lines[-1].start == 99_999 * 0x2000
    assert [line.pages_by_node for line in lines[:5]] == [{0: 1}, {1: 1}, {2: 1}, {3: 1}, {0: 1}]


def test_line_with_every_node():
    """A line may be as long as the largest machine has nodes, and its name as long as a path."""
    nodes = " ".join(f"N{node}={node + 1}" for node in range(1024))
    name = "/" + r"\040" * 4000
    line = parse_one(f"7f00 interleave:0-1023 file={name} {nodes} kernelpagesize_kB=4")
    assert line.pages_by_node == {node: node + 1 for node in range(1024)}
    assert line.mapped == line.active == 1024 * 1025 // 2
    assert line.name == "/" + " " * 4000


def printed(line: NumaMapsLine) -> str:
    """Print a line as show_numa_map in fs/proc/task_mmu.c does."""
    escaped = "".join(f"\\{ord(char):03o}" if char in "\n\t =" else char for char in line.name)
    fields = [f"{line.start:08x}", line.policy]
    fields += [escaped if escaped in {"heap", "stack"} else f"file={escaped}"] if escaped else []
    fields += ["huge"] if line.huge else []
    if line.pages_by_node:
        present = sum(line.pages_by_node.values())
        fields += [f"anon={line.anon}"] if line.anon else []
        fields += [f"dirty={line.dirty}"] if line.dirty else []
        fields += [f"mapped={line.mapped}"] if present not in {line.anon, line.dirty} else []
        fields += [f"mapmax={line.mapmax}"] if line.mapmax > 1 else []
        fields += [f"swapcache={line.swapcache}"] if line.swapcache else []
        fields += [f"active={line.active}"] if line.active < present and not line.huge else []
        fields += [f"writeback={line.writeback}"] if line.writeback else []
        fields += [f"N{node}={pages}" for node, pages in line.pages_by_node.items()]
        fields += [f"kernelpagesize_kB={line.page_size_kib}"]
    return " ".join(fields)


@st.composite
def lines_with_pages(draw) -> NumaMapsLine:
    """Draw a line of numa_maps as the kernel may have it in memory."""
    pages = draw(st.dictionaries(st.integers(0, 1023), st.integers(1, 1 << 40), min_size=1))
    present = sum(pages.values())
    part = st.integers(0, present)
    huge = draw(st.booleans())
    characters = st.characters(codec="utf-8", exclude_characters="\0\\")
    return NumaMapsLine(
        start=draw(st.integers(0, (1 << 64) - 1)),
        policy=draw(st.sampled_from(["default", "prefer (many):0-1", "bind=static:3"])),
        name=draw(st.sampled_from(["", "heap", "stack"]) | st.text(characters).map("/{}".format)),
        huge=huge,
        pages_by_node=pages,
        page_size_kib=draw(st.sampled_from([4, 64, 2048])),
        anon=draw(part),
        dirty=draw(part),
        mapped=present,
        mapmax=draw(st.integers(1, 1000)),
        swapcache=draw(part),
        active=present if huge else draw(part),
        writeback=draw(part),
    )


@given(lines_with_pages())
def test_what_the_kernel_prints_is_read_back(line):
    """Whatever the kernel has counted and prints by its rules comes back as it was counted."""
    assert parse_one(printed(line)) == line


@pytest.mark.host
def test_own_memory_is_counted():
    """Pages that this process has written appear in its numa_maps: as many, on some node."""
    size = 64 * mmap.PAGESIZE
    with mmap.mmap(-1, size) as memory:  # shared, so that the kernel does not merge it
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        (line,) = [line for line in read_numa_maps(os.getpid()) if line.start == start]
        del view
    assert sum(line.pages_by_node.values()) == line.mapped == 64
    assert line.page_size_kib * 1024 == mmap.PAGESIZE


@pytest.mark.host
def test_own_mappings_are_those_of_maps():
    """Every line of numa_maps starts at a mapping of maps, and names the same file."""
    paths = {line.start: line.path for line in read_maps(0)}
    lines = read_numa_maps(0)
    assert len(lines) > 10
    for line in lines:
        assert line.start in paths
        if line.name.startswith("/"):
            assert line.name == paths[line.start]


@pytest.mark.host
def test_odd_names_are_the_same_in_both_files(tmp_path):
    """A name with blanks, =, backslashes and new lines is read alike from maps and numa_maps."""
    path = tmp_path / "a = b\t\n\\c"
    path.write_bytes(b"x" * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        assert memory[0] == ord("x")
        (start,) = [line.start for line in read_maps(0) if line.inode == path.stat().st_ino]
        (line,) = [line for line in read_numa_maps(0) if line.start == start]
    assert line.name == str(path)


@pytest.mark.host
def test_ten_thousand_mappings(crowded):
    """A process with 10,000 mappings is read whole; once it has ended, it is gone."""
    assert len(read_numa_maps(crowded.pid)) > 10_000
    crowded.kill()
    crowded.wait()
    with pytest.raises(NoSuchProcessError):
        read_numa_maps(crowded.pid)


def test_sizes_of_hugetlb_mappings(put_process):
    """Only mappings of hugetlb with pages count; a file called huge is none of these."""
    root = put_process(
        numa_maps="1000 default file=/tmp/a\\040huge anon=1 N0=1 kernelpagesize_kB=4\n"
        "200000 default file=/anon_hugepage\\040(deleted) huge anon=4 N1=4 kernelpagesize_kB=2048\n"
        "600000 default file=/anon_hugepage\\040(deleted) huge\n"
        "40000000 bind:1 file=/mnt/huge huge anon=1 N1=1 kernelpagesize_kB=1048576\n"
    )
    assert read_hugetlb_sizes(7, root) == {0x200000: 2 << 20, 0x40000000: 1 << 30}


def test_sizes_without_numa_maps(put_process):
    """A kernel without CONFIG_NUMA does not say how large the pages of hugetlb are."""
    assert read_hugetlb_sizes(7, put_process()) == {}


def test_sizes_of_a_malformed_line(put_process):
    """The line that is wrong is named by its number in the file."""
    root = put_process(numa_maps="1000 default\nx default huge\n")
    with pytest.raises(MalformedError, match="line 2"):
        read_hugetlb_sizes(7, root)
