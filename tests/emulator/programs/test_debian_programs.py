"""Programs that no one here wrote see the emulated nodes, and their pages are where they ask."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from movepages.nodeset import NodeSet

pytestmark = pytest.mark.emulator

HERE = Path(__file__).parent
PYTHON = (shutil.which("python3", path=os.defpath) or sys.executable, "-S")
PLACED = (*PYTHON, HERE / "placed.py")
NEIGHBOURS = (*PYTHON, HERE / "neighbours.py")
MB_PAGES = 256
ANY_USER = pytest.mark.parametrize("as_nobody", [False, True], ids=["root", "nobody"])


@pytest.fixture
def numactl(program):
    """The package whose programs most of these tests run."""
    return program("numactl", "numactl")


@ANY_USER
def test_numactl_hardware(emulate, numactl, as_nobody):
    """The declared nodes, their CPUs, sizes and distances are what numactl finds."""
    machine = "2x(1cpu,1G) + 1x(0cpu,4G)"
    done = emulate(
        numactl, "--hardware", options=("--topology", machine), nodes=None, as_nobody=as_nobody
    )
    assert done.stdout.startswith("available: 3 nodes (0-2)\n")
    assert re.findall(r"node (\d) size: (\d+) MB", done.stdout) == [
        ("0", "1024"),
        ("1", "1024"),
        ("2", "4096"),
    ]
    assert re.findall(r"^node (\d) cpus: ?(.*)$", done.stdout, re.MULTILINE)[2] == ("2", "")
    rows = re.findall(r"^ +(\d): +(\d+) +(\d+) +(\d+)", done.stdout, re.MULTILINE)
    assert [row[int(row[0]) + 1] for row in rows] == ["10", "10", "10"]


@ANY_USER
@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("--membind=2", {"2": 512}),
        ("--preferred=3", {"3": 512}),
        ("--interleave=0,2", {"0": 256, "2": 256}),
        ("--interleave=all", {"0": 128, "1": 128, "2": 128, "3": 128}),
    ],
)
def test_numactl_places(emulate, numactl, policy, wanted, as_nobody):
    """Memory of a program that numactl starts is where it was asked to be."""
    said = emulate(numactl, policy, *PLACED, 512, as_nobody=as_nobody).stdout
    assert json.loads(said) == wanted


def test_numactl_show(emulate, numactl):
    """A policy is inherited over exec, and shown as it was set."""
    said = emulate(numactl, "--interleave=1,3", numactl, "--show").stdout
    shown = dict(line.split(":", 1) for line in said.splitlines())
    assert shown["policy"].strip() == "interleave"
    assert shown["interleavemask"].split() == ["1", "3"]
    assert shown["membind"].split() == ["0", "1", "2", "3"]


@ANY_USER
def test_numastat_and_migratepages(emulate, numactl, as_nobody):
    """16 MB bound to node 1 are seen there by another process, moved to node 3, and seen there."""
    pages = 16 * MB_PAGES
    bound = (numactl, "--membind=1", *PLACED)
    said = json.loads(emulate(*NEIGHBOURS, pages, 1, 3, *bound, as_nobody=as_nobody).stdout)
    assert said["before"] == {"1": pages}
    assert said["after"] == {"3": pages}
    before, after = said["numastat"]
    # A user may not move what others map as well, such as the pages of libraries.
    assert before[1] >= 16
    assert before[3] < 1
    assert after[3] >= 16
    assert before[1] - after[1] >= 16


def test_migspeed(emulate, program, tmp_path):
    """A thousand pages that migspeed moves are moved: they are counted."""
    report = tmp_path / "report.json"
    migspeed = program("migspeed", "numactl")
    said = emulate(migspeed, "-p", 1000, 1, 3, options=("--report", report)).stdout
    assert said.startswith("3.9 Mbyte migrated")
    assert json.loads(report.read_text())["pages_moved"] == 1000


def test_memhog(emulate, program):
    """Memory that memhog takes is bound to the node, and counted there while it runs.

    It prints a dot before each time that it writes to all of it: after two it has done so once.
    """
    script = (
        "import os, subprocess as s, sys\n"
        "p = s.Popen([sys.argv[1], '-r1000000', '8M', 'membind', '2'], stdout=s.PIPE)\n"
        "p.stdout.read(2)\n"
        "print(open(f'/proc/{p.pid}/numa_maps').read())\n"
        "p.kill()\n"
    )
    said = emulate(*PYTHON, "-c", script, program("memhog", "numactl")).stdout
    bound = [line for line in said.splitlines() if " bind" in line]
    assert len(bound) == 1
    assert "N2=2048" in bound[0].split()


def test_lscpu(emulate, program):
    """It finds four nodes, and the CPUs of each on that node alone."""
    said = emulate(program("lscpu", "util-linux")).stdout
    assert re.search(r"NUMA node\(s\): +4$", said, re.MULTILINE)
    cpus = re.findall(r"NUMA node\d CPU\(s\): *(.*)$", said, re.MULTILINE)
    assert len(cpus) == 4
    listed = [cpu for node in cpus for cpu in sorted(NodeSet.parse(node))]
    assert len(listed) == len(set(listed)) > 0


def test_stress_ng(emulate, program, tmp_path):
    """Its stressor of all NUMA calls sees four nodes and ends well, and every call was served."""
    report = tmp_path / "report.json"
    stress = program("stress-ng", "stress-ng")
    options = ("--numa", 1, "--numa-ops", 2, "--timeout", 30, "--temp-path", tmp_path)
    done = emulate(stress, *options, options=("--report", report))
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert "system has 4 of a maximum" in said
    assert "successful run completed" in said
    calls = json.loads(report.read_text())["calls"]
    wanted = {"get_mempolicy", "set_mempolicy", "mbind", "migrate_pages", "move_pages"}
    assert wanted <= set(calls)


def test_static_binary(emulate, program):
    """A static program is served as well: nothing is preloaded into it."""
    busybox = program("busybox", "busybox-static")
    if b"/ld-linux" in Path(busybox).read_bytes()[:4096]:
        pytest.skip("busybox is not static here: apt-get install busybox-static")
    said = emulate(busybox, "grep", "Mems_allowed_list", "/proc/self/status").stdout
    assert said.split() == ["Mems_allowed_list:", "0-3"]
    said = emulate(busybox, "cat", "/sys/devices/system/node/online").stdout
    assert said == "0-3\n"


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed: apt-get install gcc")
def test_static_program_moves_pages(native, emulate, tmp_path):
    """`examples/move_pages.c`, linked statically, has all its checks hold."""
    source = HERE.parents[2] / "examples" / "move_pages.c"
    built = tmp_path / "move_pages"
    assert native("cc", "-static", "-o", built, source).returncode == 0
    assert b"/ld-linux" not in built.read_bytes()
    assert "45 checks, 0 failed, 0 left out" in emulate(built).stdout
