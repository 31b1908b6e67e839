"""The command line on real processes of this machine's kernel, as its users run it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

PAGES = 8
CHILD = f"""
import ctypes, mmap, os, sys
page = mmap.PAGESIZE
memory = mmap.mmap(-1, {PAGES} * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for index in range({PAGES // 2}):
    memory[index * page] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), page, flush=True)
sys.stdin.read()
"""
ON_A_PROCESS = [
    ["show", "PID"],
    ["query", "PID", "1000"],
    ["move", "PID", "--to", "all", "--all-mappings"],
    ["migrate", "PID", "--from", "all", "--to", "all"],
    ["migrate", "PID", "--from", "all", "--to", "all", "--kernel"],
    ["spread", "PID", "--to", "all"],
    ["pack", "PID"],
]
STRANGER = """
import os, sys
from movepages.cli import main
from movepages.report.output import Output
quiet, own = Output(open(os.devnull, "w")), str(os.getpid())
main(["show", own], output=quiet)
main(["query", own, "0"], output=quiet)
main(["move", own, "--to", "all", "--all-mappings"], output=quiet)
main(["migrate", own, "--from", "all", "--to", "all"], output=quiet)
main(["migrate", own, "--from", "all", "--to", "all", "--kernel"], output=quiet)
main(["spread", own, "--to", "all"], output=quiet)
main(["pack", own], output=quiet)
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(1000), os.setuid(1000)
sys.exit(main(sys.argv[1:]))
"""
"""Loads all that it will need, gives up root, and only then does what it is here for."""

OPENED = """
import os, sys
opened = []
sys.addaudithook(lambda event, facts: opened.append(facts[0]) if event == "open" else None)
from movepages.cli import main
main(["show", *sys.argv[1:]])
sys.stdout.flush()
print(*[os.path.basename(os.fsdecode(path)) for path in opened if "/proc/" in str(path)],
      file=sys.stderr)
"""
"""Runs `show` and then tells which files of /proc it opened."""


@pytest.fixture
def child():
    """Start a process that waits with half of 8 pages touched: (process, address, page size)."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        address, page = map(int, process.stdout.readline().split())
        yield process, address, page
        process.stdin.close()


def movepages(*arguments, **settings):
    """Run `movepages` in a process of its own, its output a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "movepages", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **settings,
    )


def test_show(child):
    """The parts of a process add up: nodes to the whole, mappings to the nodes."""
    process, _, _ = child
    shown = json.loads(movepages("show", process.pid, "--json").stdout)
    assert shown["pid"] == process.pid
    assert shown["command"].startswith("python")
    assert shown["resident_bytes"] == sum(shown["bytes_by_node"].values())
    assert shown["resident_bytes"] == sum(each["resident_bytes"] for each in shown["mappings"])
    assert any(each["kind"] == "stack" for each in shown["mappings"])


@pytest.mark.parametrize("options", [[], ["--all"], ["--json"]])
def test_show_reads_numa_maps_once(child, options):
    """It walks the page tables of the process once, and never by smaps, which takes longer."""
    process, _, _ = child
    ended = subprocess.run(
        [sys.executable, "-c", OPENED, str(process.pid), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    opened = ended.stderr.split()
    assert opened.count("numa_maps") == 1
    assert not {"smaps", "smaps_rollup", "pagemap"} & set(opened)


def test_query(child):
    """The touched half is on a node, and the other half is not present (or EFAULT, by kernel)."""
    process, start, page = child
    asked = f"{start:x}-{start + PAGES * page:x}"
    pages = json.loads(movepages("query", process.pid, asked, "--json").stdout)["pages"]
    assert [each["address"] for each in pages] == [hex(start + n * page) for n in range(PAGES)]
    assert all(each["status"] >= 0 for each in pages[: PAGES // 2])
    assert {each["name"] for each in pages[PAGES // 2 :]} <= {"ENOENT", "EFAULT"}


def test_move_to_the_node_where_it_is(child):
    """Pages that are where they should be are counted as such, and the exit code is 0."""
    process, start, page = child
    asked = f"{start:x}+{PAGES * page}"
    query = movepages("query", process.pid, f"{start:x}", "--json")
    node = json.loads(query.stdout)["pages"][0]["status"]
    ended = movepages("move", process.pid, "--to", node, asked, "--json")
    assert ended.returncode == 0
    report = json.loads(ended.stdout)
    half = PAGES // 2
    assert (report["asked"], report["moved"], report["failed"]) == (half, 0, {})
    assert report["already_there"] == half


def test_migrate_to_the_node_where_it_is(child):
    """Nothing is to move, and memory by node is the same before and after."""
    process, _, _ = child
    shown = json.loads(movepages("show", process.pid, "--json").stdout)
    nodes = ",".join(shown["bytes_by_node"])
    asked = ("migrate", process.pid, "--from", nodes, "--to", nodes, "--json")
    report = json.loads(movepages(*asked).stdout)
    assert (report["moved"], report["asked"]) == (0, report["already_there"])
    report = json.loads(movepages(*asked, "--kernel").stdout)
    assert report["not_moved"] == 0
    assert report["bytes_by_node_before"] == report["bytes_by_node_after"]


@pytest.mark.parametrize("arguments", ON_A_PROCESS, ids=lambda words: words[0])
def test_another_users_process(arguments):
    """Each command says that the process is not the caller's, and ends with 4."""
    own = str(os.getpid()) if os.geteuid() == 0 else "1"
    ended = subprocess.run(
        [sys.executable, "-c", STRANGER, *(own if word == "PID" else word for word in arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith("movepages: ")
    assert "not yours to look at" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ON_A_PROCESS, ids=lambda words: words[0])
def test_zombie(arguments):
    """A process that has ended, but that its parent has not waited for, is gone: 3."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    ended = movepages(*(str(pid) if word == "PID" else word for word in arguments))
    os.waitpid(pid, 0)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert f"process {pid} has ended" in ended.stderr


def test_reader_that_stops_early(child):
    """`movepages query ... | head -1` gets its line, and nothing is said of the rest."""
    process, _, _ = child
    with subprocess.Popen(
        [sys.executable, "-m", "movepages", "query", str(process.pid), "0+1G", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as query:
        assert query.stdout.readline() == "{\n"
        query.stdout.close()
        assert query.stderr.read() == ""
    assert query.returncode == 141


def test_full_disk():
    """What cannot be written at the very end is noticed, too."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "movepages", "nodes"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 74
    assert ended.stderr == "movepages: the output cannot be written: No space left on device\n"


def test_interrupt_in_the_middle(child):
    """Ctrl-C in a long query ends it with 130 and one line."""
    process, _, _ = child
    with subprocess.Popen(
        [sys.executable, "-m", "movepages", "query", str(process.pid), "0-7fffffffffff", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as query:
        assert query.stdout.readline() == "{\n"  # it is at work
        query.send_signal(signal.SIGINT)
        query.stdout.close()
        told = query.stderr.read()
    assert (query.returncode, told.strip()) in {(130, "movepages: interrupted"), (141, "")}


@pytest.mark.parametrize("options", [[], ["--all"]])
@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal(child, options, variables, coloured):
    """On a real terminal of 80 columns nothing is wider, and colours obey NO_COLOR."""
    process, _, _ = child
    text = on_terminal("show", process.pid, *options, TERM="xterm", COLUMNS="80", **variables)
    assert ("\x1b[36m" in text) is coloured
    assert "█" in text
    plain = text.replace("\r", "")
    for code in ("\x1b[1m", "\x1b[0m", "\x1b[36m", "\x1b[35m"):
        plain = plain.replace(code, "")
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80


def on_terminal(*arguments, **variables):
    """Run `movepages` on a pseudo-terminal and return what it showed."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "movepages", *map(str, arguments)],
        stdout=theirs,
        env=environment | variables,
    ) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # EIO: the other end was closed
                break
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()
