"""The command `movepages` on four nodes, and a live process that it moves around them.

Each start of the command costs the guest seconds, so there are few, and each proves several things.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from movepages import api
from movepages.units import parse_range

pytestmark = [pytest.mark.lab, pytest.mark.needs_nodes(4)]

COMMAND = Path(sys.executable).with_name("movepages")
WORKER = Path(__file__).parents[2] / "examples" / "worker.py"
MIB = 8
PAGES = MIB << 8


def movepages(*arguments, uid=0):
    """Run the command; return its exit code, standard output and standard error."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        user=uid,
        group=uid,
        extra_groups=[],
    )
    return done.returncode, done.stdout, done.stderr


class Worker:
    """examples/worker.py, running: a process that checks its own memory."""

    def __init__(self) -> None:
        """Start it, and wait until its memory is filled. It leaves the CPUs to who moves it."""
        command = ["nice", "-n", "19", sys.executable, WORKER, str(MIB)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        pid, number, memory, self.span = self._process.stdout.readline().split()
        assert (pid, int(number), memory) == ("pid", self.pid, "memory")
        self.range = parse_range(self.span)

    def verdict(self):
        """Return what it says of all its memory after another round: how often checked, errors."""
        self._process.send_signal(signal.SIGUSR1)
        return self._heard()

    def end(self):
        """End it; return its exit code and its last verdict."""
        self._process.terminate()
        verdict = self._heard()
        return self._process.wait(), verdict

    def close(self):
        """Make sure that it is gone."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def placement(self):
        """Return how many of its pages are on which node."""
        placement = api.Process(self.pid).locate(self.range)
        return {node: size >> 12 for node, size in placement.bytes_by_node.items()}

    def _heard(self):
        words = self._process.stdout.readline().split()
        assert words[::2] == ["checked", "times,", "errors"]
        return int(words[1]), int(words[3])


@pytest.fixture
def worker():
    """A process that checks its own memory, on node 0; CPU 1 is free for what moves it."""
    running = Worker()
    os.sched_setaffinity(0, {1})
    yield running
    running.close()


def test_live_process_moves_around_four_nodes(worker):
    """Moved from node 0 to 1, 2, 3 and back while it runs, a process never finds a wrong byte.

    The first move takes all its mappings, and so meets pages that this test's Python maps as well.
    """
    assert worker.placement() == {0: PAGES}
    checked = 0
    spans = ("--all-mappings", worker.span, worker.span, worker.span)
    for target, what in zip((1, 2, 3, 0), spans, strict=True):
        code, output, _ = movepages("move", worker.pid, "--to", target, what, "--json")
        said = json.loads(output)
        if what == "--all-mappings":
            assert (code, said["failed"].keys()) == (1, {"EACCES"})
            everything = said["moved"] + said["already_there"] + said["failed"]["EACCES"]
            assert said["asked"] == everything > PAGES
        else:
            assert (code, said["failed"]) == (0, {})
            assert (said["asked"], said["moved"], said["already_there"]) == (PAGES, PAGES, 0)
            assert said["bytes_moved"] == MIB << 20
        assert worker.placement() == {target: PAGES}
        before, (checked, errors) = checked, worker.verdict()
        assert errors == 0
        assert checked > before
    code, (_, errors) = worker.end()
    assert (code, errors) == (0, 0)


def test_show_and_query(worker):
    """`show` names the process, its nodes and its largest mapping; `query` answers page by page."""
    start, end = worker.range
    code, output, _ = movepages("show", worker.pid)
    assert code == 0
    assert f"({worker.pid}): " in output
    assert "  node 0  #" in output
    memory = next(m for m in api.Process(worker.pid).mappings() if m.start <= start < end <= m.end)
    assert f"{memory.start:x} " in output
    code, output, _ = movepages("query", worker.pid, f"{start:x}", "0", "--json")
    assert code == 0
    assert [page["status"] for page in json.loads(output)["pages"]] == [0, -14]


def test_migrate(worker):
    """`migrate --kernel` takes a whole process to another node in one call, its data intact."""
    asked = ("migrate", worker.pid, "--from", "0", "--to", "3", "--kernel", "--json")
    code, output, _ = movepages(*asked)
    said = json.loads(output)
    assert code == (1 if said["not_moved"] else 0)
    assert said["bytes_by_node_after"]["3"] >= MIB << 20
    assert worker.placement() == {3: PAGES}
    assert worker.verdict()[1] == 0


def test_not_permitted(worker):
    """Uid 1000 may not move root's process: exit code 4, one line, and nothing has moved."""
    code, output, errors = movepages("move", worker.pid, "--to", "1", worker.span, uid=1000)
    assert (code, output) == (4, "")
    assert errors.startswith(f"movepages: process {worker.pid} is not yours")
    assert errors.count("\n") == 1
    assert worker.placement() == {0: PAGES}
