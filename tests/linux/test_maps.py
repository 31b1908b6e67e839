from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

import pytest

from movepages.errors import MalformedError, NoSuchProcessError, NotPermittedError
from movepages.linux.maps import MapsLine, parse_maps, read_maps
from movepages.linux.reading import read_process_text
from movepages.linux.status import read_status

MAPS = Path("maps")

# The example of proc_pid_maps(5), with the layout of show_map_vma: name in column 74.
EXAMPLE = """\
00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/dbus-daemon
00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]
35b1a21000-35b1a22000 rw-p 00000000 00:00 0
f2c6ff8c000-7f2c7078c000 rw-p 00000000 00:00 0                           [stack:986]
7fffb2d48000-7fffb2d49000 r-xs 00001000 103:0a 18446744073709551615      /SYSV00000000 (deleted)
"""


def test_example_of_the_man_page():
    """Every field of a line is read: bounds, permissions, offset, device, inode and name."""
    lines = parse_maps(EXAMPLE, MAPS)
    assert lines[0] == MapsLine(
        0x400000, 0x452000, "r-xp", 0, "08:02", 173521, "/usr/bin/dbus-daemon"
    )
    assert [line.path for line in lines[1:4]] == ["[heap]", "", "[stack:986]"]
    assert lines[4] == MapsLine(
        0x7FFFB2D48000,
        0x7FFFB2D49000,
        "r-xs",
        0x1000,
        "103:0a",
        2**64 - 1,
        "/SYSV00000000 (deleted)",
    )


def test_no_text_is_no_mapping():
    """A task without memory has an empty file, and no mappings."""
    assert parse_maps("", MAPS) == []


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("/tmp/sp ace  two", "/tmp/sp ace  two"),
        ("/tmp/ends in blank ", "/tmp/ends in blank "),
        (r"/tmp/new\012line", "/tmp/new\nline"),
        (r"/tmp/back\040slash\134", r"/tmp/back\040slash\134"),
        ("/tmp/tab\there", "/tmp/tab\there"),
        ("/tmp/\x0b\x0c\r\x1c\x85\u2028odd", "/tmp/\x0b\x0c\r\x1c\x85\u2028odd"),
        ("/tmp/\udcff\udc80", "/tmp/\udcff\udc80"),
        ("/tmp/gone (deleted)", "/tmp/gone (deleted)"),
        ("[anon: my heap]", "[anon: my heap]"),
    ],
)
def test_names_are_kept_whole(printed, name):
    """Only the new line is escaped in maps; all other bytes stand for themselves (seq_path)."""
    (line,) = parse_maps(f"1000-2000 rw-p 00000000 00:00 0      {printed}\n", MAPS)
    assert line.path == name


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("", "line"),
        ("1000-2000 rw-p 00000000 00:00", "line"),
        ("1000 rw-p 00000000 00:00 0", "end"),
        ("x-2000 rw-p 00000000 00:00 0", "start"),
        ("1000-2000-3000 rw-p 00000000 00:00 0", "end"),
        ("1000-2000 rw-p zero 00:00 0", "offset"),
        ("1000-2000 rw-p 00000000 00:00 0x1", "inode"),
        ("1000-1000 rw-p 00000000 00:00 0", "start"),
        ("2000-1000 rw-p 00000000 00:00 0", "start"),
        ("800-1000 rw-p 00000000 00:00 0", "start"),
    ],
)
def test_malformed_line_is_named(line, field):
    """A line that no kernel prints is refused with path, number of the line and field."""
    good = "0-1000 rw-p 00000000 00:00 0 \n"
    with pytest.raises(MalformedError) as caught:
        parse_maps(f"{good}{line}\n{good}", MAPS)
    assert (caught.value.path, caught.value.line, caught.value.field) == (MAPS, 2, field)


def test_file_that_is_cut_short_is_refused():
    """The kernel ends every line; half a line at the end is not passed off as a mapping."""
    with pytest.raises(MalformedError, match="line 5: line: the file is cut short"):
        parse_maps(EXAMPLE[:-10], MAPS)


@pytest.mark.parametrize(
    ("before", "newest", "after"),
    [
        ([(1, 3), (4, 5)], (4, 9), [(1, 3), (4, 9)]),
        ([(1, 3), (4, 5)], (2, 9), [(1, 2), (2, 9)]),
        ([(1, 3), (4, 5), (5, 6)], (1, 9), [(1, 9)]),
        ([(1, 3), (4, 5)], (0, 9), [(0, 9)]),
        ([(1, 3), (4, 6)], (5, 7), [(1, 3), (4, 5), (5, 7)]),
        ([(1, 3), (4, 6)], (6, 7), [(1, 3), (4, 6), (6, 7)]),
    ],
)
def test_mappings_that_grew_while_they_were_read_count_once(before, newest, after):
    """The kernel prints a mapping again that grew over those before it: the newest line stands."""
    text = "".join(f"{a:x}000-{b:x}000 rw-p 00000000 00:00 0 \n" for a, b in [*before, newest])
    lines = parse_maps(f"{text}f000-10000 rw-p 00000000 00:00 0 \n", MAPS)
    assert [(line.start >> 12, line.end >> 12) for line in lines] == [*after, (15, 16)]


def test_hundred_thousand_lines():
    """A file of a hundred thousand lines is read whole, in order."""
    text = "".join(
        f"{page * 0x2000:x}-{page * 0x2000 + 0x1000:x} rw-p 00000000 00:00 0 \n"
        for page in range(100_000)
    )
    lines = parse_maps(text, MAPS)
    assert len(lines) == 100_000
    assert lines[-1].end == 99_999 * 0x2000 + 0x1000


@pytest.mark.host
def test_own_mapping_of_a_file(tmp_path):
    """A file mapped by this process appears with its own inode, device, size and offset."""
    path = tmp_path / "a file\nof two lines"
    path.write_bytes(bytes(8 * mmap.PAGESIZE))
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        offset = mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ, offset=offset):
            (line,) = [line for line in read_maps(0) if line.path == str(path)]
    assert line.inode == facts.st_ino
    assert line.end - line.start == max(4096, mmap.PAGESIZE)
    assert line.offset == offset
    assert line.permissions == "r--s"
    major, minor = (int(part, 16) for part in line.device.split(":"))
    assert (major, minor) == (os.major(facts.st_dev), os.minor(facts.st_dev))


@pytest.mark.host
def test_every_kernel_thread_has_no_mappings():
    """Of all tasks here, kernel threads have no mappings, and this process has some."""
    assert len(read_maps(os.getpid())) > 10
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        try:
            if read_status(pid).kernel_thread:
                assert read_maps(pid) == []
                with suppress(NotPermittedError):  # root only
                    assert read_process_text(pid, "pagemap") == "", "where the kernel says ESRCH"
        except NoSuchProcessError:
            continue  # it ended in between
