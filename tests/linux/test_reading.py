from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from movepages.errors import MalformedError, NoSuchProcessError, UnsupportedError
from movepages.linux import reading

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path("a file")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", ()),
        ("\n", ()),
        ("0\n", (0,)),
        ("0-3\n", (0, 1, 2, 3)),
        ("0,2-3,8", (0, 2, 3, 8)),
        ("65535", (65535,)),
    ],
)
def test_parse_list_reads_what_the_kernel_prints(text, numbers):
    """A list of nodes or CPUs, also an empty line, becomes the numbers that it names."""
    assert reading.parse_list(text, FILE) == numbers


@pytest.mark.parametrize(
    "text", ["x", "0-", "-1", "0,,1", "3-1", "1,1", "2,0", "0-3,2", "0 1", "all", "65536", "٣"]
)
def test_parse_list_names_the_place_of_garbage(text):
    """A list that no kernel prints is refused with path, line and field."""
    with pytest.raises(MalformedError) as caught:
        reading.parse_list(text, FILE, 4, "online")
    assert (caught.value.path, caught.value.line, caught.value.field) == (FILE, 4, "online")
    assert str(caught.value).startswith("a file, line 4: online: ")


def test_parse_list_refuses_a_range_without_allocating_it():
    """A range up to a huge number is refused at once, not expanded."""
    with pytest.raises(MalformedError):
        reading.parse_list(f"0-{10**18}", FILE)


@pytest.mark.parametrize("text", ["", "x", "1_0", "٣", "0x10", "1.0", "1 2"])
def test_parse_number_takes_only_what_the_kernel_writes(text):
    """Numbers as Python alone writes them are refused as garbage is."""
    with pytest.raises(MalformedError, match=r"a file, line 2: count: .* is not a number"):
        reading.parse_number(text, FILE, 2, "count")


def test_parse_number_reads_negative_and_hexadecimal_numbers():
    """Errnos are negative, addresses hexadecimal."""
    assert reading.parse_number("-14", FILE, 1, "x") == -14
    assert reading.parse_number("ff", FILE, 1, "x", 16) == 255


def test_unescape_undoes_only_what_the_file_escapes():
    r"""`\040` is a blank where blanks are escaped; `\101` and a lone backslash stay as they are."""
    assert reading.unescape(r"a\040b\101\c\04", " ") == r"a b\101\c\04"
    assert reading.unescape(r"a\040b", "\n") == r"a\040b"


def test_optional_files_may_be_missing(put):
    """A file that is not there, or below a file, is None; one that is there is read."""
    root = put("there", " 42 \n")
    assert reading.read_optional(root / "there") == "42"
    assert reading.read_optional_number(root / "there") == 42
    assert reading.read_optional(root / "gone") is None
    assert reading.read_optional_number(root / "there/below") is None


def test_counters_are_read_by_name(put):
    """Lines of a name and a number become a mapping; a line without number is named."""
    root = put("good", "numa_hit 7\nnuma_miss 0\n")
    assert reading.read_counters(root / "good") == {"numa_hit": 7, "numa_miss": 0}
    put("bad", "numa_hit 7\nnuma_miss\n")
    with pytest.raises(MalformedError, match="line 2: numa_miss"):
        reading.read_counters(root / "bad")


def test_bytes_that_are_no_text_survive(tmp_path):
    """A file with any bytes in it is read, and its text can be written back unchanged."""
    (tmp_path / "file").write_bytes(b"/tmp/\xff\xc3")
    text = reading.read_text(tmp_path / "file")
    assert text.encode("utf-8", "surrogateescape") == b"/tmp/\xff\xc3"


def test_start_ticks_skips_a_name_with_blanks_and_parentheses(put_process):
    """The fields of stat are counted from the last parenthesis, whatever the name holds."""
    assert reading.start_ticks(7, put_process()) == 5000


@pytest.mark.parametrize("text", ["", "7 (x) S 1 2 3\n", "7 x S" + " 0" * 50])
def test_short_stat_line_is_malformed(put, text):
    """A stat line without its fields is refused, not indexed past its end."""
    root = put("proc/7/stat", text)
    with pytest.raises(MalformedError, match=r"stat, line 1: line"):
        reading.start_ticks(7, root)


@pytest.mark.parametrize(("state", "flags"), [("Z", 0), ("X", 0), ("S", 0x4), ("Z", 0x4)])
def test_process_that_ended_has_no_start(put, state, flags):
    """A zombie, and a process on its way out (PF_EXITING), count as gone: their memory is."""
    root = put("proc/7/stat", f"7 (x) {state} 1 7 7 0 -1 {flags}" + " 0" * 40)
    with pytest.raises(NoSuchProcessError, match="process 7 has ended"):
        reading.start_ticks(7, root)


def test_missing_process_is_told_apart_from_a_missing_file(put_process):
    """Without stat there is no process; with it, it is the kernel that lacks the file."""
    root = put_process()
    with pytest.raises(NoSuchProcessError, match="there is no process 8"):
        reading.read_process_text(8, "numa_maps", root)
    with pytest.raises(UnsupportedError, match=r"this kernel has no .*numa_maps"):
        reading.read_process_text(7, "numa_maps", root)


@pytest.mark.host
def test_own_process_is_pid_0(no_pid):
    """Pid 0 is the caller; a pid that cannot be is refused with its number as attribute."""
    assert reading.start_ticks(0) == reading.start_ticks(os.getpid())
    assert reading.read_process_text(0, "maps").count("\n") > 10
    with pytest.raises(ProcessLookupError) as caught:
        reading.read_process_text(no_pid, "maps")
    assert caught.value.pid == no_pid


@pytest.mark.host
def test_a_program_is_told_from_the_one_before(crowded):
    """A process that executes another program keeps its start, and is another program."""
    before = reading.living_program(crowded.pid)
    assert reading.living_program(crowded.pid) == before
    crowded.stdin.write(b"exec\nx\n")
    crowded.stdin.flush()
    assert crowded.stdout.readline() == b"x\n"  # `cat` runs
    after = reading.living_program(crowded.pid)
    assert after[0] == before[0] == str(reading.start_ticks(crowded.pid))
    assert after != before


@pytest.mark.host
def test_zombie_has_records_but_no_memory(zombie):
    """A zombie's maps are refused as those of a process that ended; its status can be read."""
    assert "State:\tZ" in reading.read_process_record(zombie, "status")
    with pytest.raises(NoSuchProcessError, match="has ended"):
        reading.read_process_text(zombie, "maps")


@pytest.mark.host
def test_strangers_are_refused(as_stranger):
    """Another user's process gives one clear error, with what to do."""
    pid = os.getpid()
    for name in ("maps", "numa_maps"):
        said = as_stranger(lambda name=name: reading.read_process_text(pid, name))
        assert said.startswith(f"NotPermittedError: process {pid} is not yours to look at")
        assert said.endswith("run as its owner or as root")


class Slowly:
    """A captured root whose numa_maps of a process stops after the first piece, for an event.

    numa_maps is a FIFO that passes on the real file; stat is the real one.
    """

    def __init__(self, root: Path, pid: int, event: Callable[[], None]) -> None:
        """Lay out the root, and start to serve."""
        self.root, self.pid, self._event = root, pid, event
        directory = root / "proc" / str(pid)
        directory.mkdir(parents=True)
        (directory / "stat").symlink_to(f"/proc/{pid}/stat")
        self._fifo = directory / "numa_maps"
        os.mkfifo(self._fifo)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        real = os.open(f"/proc/{self.pid}/numa_maps", os.O_RDONLY)
        with self._fifo.open("wb") as fifo:
            fifo.write(os.read(real, 4096))
            fifo.flush()
            self._event()
            try:
                while piece := os.read(real, 65536):
                    fifo.write(piece)
            except ProcessLookupError:
                pass
            self._fifo.unlink()  # a second reading, if any, finds the real file
            self._fifo.symlink_to(f"/proc/{self.pid}/numa_maps")
        os.close(real)

    def read(self) -> str:
        """Read numa_maps as every reader does."""
        try:
            return reading.read_process_text(self.pid, "numa_maps", self.root)
        finally:
            self._thread.join()


@pytest.mark.host
def test_process_that_is_gone_after_the_first_piece(tmp_path, crowded):
    """A process killed and waited for in the middle of the read gives an error, not half a text."""

    def end() -> None:
        crowded.kill()
        crowded.wait()

    with pytest.raises(NoSuchProcessError, match=f"there is no process {crowded.pid}"):
        Slowly(tmp_path, crowded.pid, end).read()


@pytest.mark.host
def test_process_that_is_a_zombie_after_the_first_piece(tmp_path, crowded):
    """A process that was killed but not waited for is still in /proc, and seen to have ended."""

    def end() -> None:
        crowded.kill()
        os.waitid(os.P_PID, crowded.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(NoSuchProcessError, match=f"process {crowded.pid} has ended"):
        Slowly(tmp_path, crowded.pid, end).read()


@pytest.mark.host
def test_process_that_starts_another_program_is_read_again(tmp_path, crowded):
    """After execve the old program's file just stops; the whole of the new one's is returned."""

    def execute() -> None:
        crowded.stdin.write(b"exec\nx\n")
        crowded.stdin.flush()
        assert crowded.stdout.readline() == b"x\n"  # `cat` runs

    text = Slowly(tmp_path, crowded.pid, execute).read()
    assert 5 < text.count("\n") < 100
    assert " stack " in text


@pytest.mark.host
def test_process_that_lives_is_read_whole(tmp_path, crowded):
    """The same way of reading, without an event, returns all of the 10,000 mappings."""
    text = Slowly(tmp_path, crowded.pid, lambda: None).read()
    assert text.count("\n") > 10_000


def test_another_process_under_the_same_pid_is_not_mistaken(put_process):
    """If the start time differs after the read, the pid was used again: the process is gone."""
    root = put_process()
    stat = root / "proc/7/stat"
    os.mkfifo(root / "proc/7/maps")

    def replace() -> None:
        with (root / "proc/7/maps").open("w", encoding="ascii") as maps:
            stat.write_text(stat.read_text("ascii").replace(" 5000 ", " 5001 "), "ascii")
            maps.write("half a text")

    thread = threading.Thread(target=replace)
    thread.start()
    with pytest.raises(NoSuchProcessError, match="there is no process 7"):
        reading.read_process_text(7, "maps", root)
    thread.join()


def test_process_that_never_keeps_its_program_is_given_up(put_process):
    """A process that starts another program at each attempt ends in an error, not in a loop."""
    root = put_process()
    stat, maps = root / "proc/7/stat", root / "proc/7/maps"
    text = stat.read_text("ascii")
    os.mkfifo(maps)

    def replace() -> None:
        for attempt in range(4):
            with maps.open("w", encoding="ascii") as fifo:
                maps.unlink()
                os.mkfifo(maps)  # the next attempt opens another than the one that now ends
                stat.write_text(text.replace(" 4096 ", f" {attempt} "), "ascii")
                fifo.write("x")

    thread = threading.Thread(target=replace)
    thread.start()
    with pytest.raises(NoSuchProcessError, match="process 7 starts another program each time"):
        reading.read_process_text(7, "maps", root)
    thread.join()
