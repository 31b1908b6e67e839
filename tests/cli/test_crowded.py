"""`show` of processes with very many mappings, and of files that are not as documented."""

from __future__ import annotations

import io
import json
import time

import pytest

from movepages.cli import main
from movepages.linux.machine import LinuxMachine
from movepages.report.output import Output

LINES = 100_000
STATUS = """\
Name:\tcrowd
State:\tS (sleeping)
Tgid:\t7
Pid:\t7
PPid:\t1
Uid:\t0\t0\t0\t0
Gid:\t0\t0\t0\t0
VmSize:\t800000 kB
Threads:\t1
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
Cpus_allowed_list:\t0-1
Mems_allowed_list:\t0-1
"""
STAT = f"7 (crowd) S 1 7 7 0 -1 4194304{' 0' * 12} 5000{' 0' * 30}\n"


@pytest.fixture
def crowd(tmp_path):
    """Return a captured process of 100,000 mappings of 8K, half on node 0, half on node 1."""
    process = tmp_path / "proc/7"
    (process / "task/7").mkdir(parents=True)
    (process / "stat").write_text(STAT)
    (process / "task/7/stat").write_text(STAT)
    (process / "status").write_text(STATUS)
    starts = [0x10000000 + index * 0x10000 for index in range(LINES)]
    (process / "maps").write_text(
        "".join(f"{start:x}-{start + 0x2000:x} rw-p 00000000 00:00 0 \n" for start in starts)
    )
    (process / "numa_maps").write_text(
        "".join(
            f"{start:x} default anon=2 dirty=2 N0=1 N1=1 kernelpagesize_kB=4\n" for start in starts
        )
    )
    return tmp_path


def run(root, *arguments):
    """Run `movepages` on a captured machine: exit code, output, CPU seconds."""
    stream = io.StringIO()
    before = time.process_time()
    code = main(arguments, machine=LinuxMachine(root), output=Output(stream))
    return code, stream.getvalue(), time.process_time() - before


def test_first_screen(crowd):
    """It stays one screen, and adds up all 100,000."""
    code, out, _ = run(crowd, "show", "7")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "crowd (7): 781M resident in 100,000 mappings"
    assert lines[-1] == "... 99,970 more: see --all"
    assert len(lines) == 3 + 1 + 2 + 30 + 1


def test_all(crowd):
    """--all has a line for each, in a tenth of a millisecond of CPU."""
    code, out, seconds = run(crowd, "show", "7", "--all")
    assert code == 0
    assert len(out.splitlines()) == LINES + 5
    assert seconds < LINES / 10_000


def test_json(crowd):
    """JSON has all of them as well, in the same time."""
    code, out, seconds = run(crowd, "show", "7", "--json")
    assert code == 0
    assert len(json.loads(out)["mappings"]) == LINES
    assert seconds < LINES / 10_000


def test_malformed_line(crowd, capsys):
    """A line that is not as documented ends it with 5: file, line, field, and no half list."""
    path = crowd / "proc/7/numa_maps"
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace("N1=1", "N1=x")
    path.write_text("".join(lines))
    code, out, _ = run(crowd, "show", "7", "--all")
    assert (code, out) == (5, "")
    assert f"{path}, line 5: N1: " in capsys.readouterr().err
