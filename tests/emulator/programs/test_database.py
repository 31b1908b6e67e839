"""A database works on while its memory is moved under it, and nothing it knows is lost."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

DATABASE = Path(__file__).parents[2] / "programs" / "database.py"
TRANSACTIONS = 300
CLIENTS = 4


@pytest.fixture
def open_directory():
    """Return a directory that the user whom the server runs as can get at."""
    directory = Path(tempfile.mkdtemp(prefix="movepages-database-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


def test_postgresql_is_moved_while_it_works(emulate, open_directory):
    """Shared buffers and backends go to node 1, over all nodes, and back, while pgbench runs."""
    machine = ("--topology", "2x(1cpu,512M) + 2x(0cpu,512M)")
    done = emulate(
        *(sys.executable, DATABASE, open_directory, TRANSACTIONS), nodes=None, options=machine
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] >= 1
    assert said["processes"] > CLIENTS
    for step in ("moved", "spread", "put back"):
        assert said[step]["pages"] > 0
        assert said[step]["strayed"] == 0
    # What a backend lets go of between plan and call is gone; nothing else may stay.
    stayed = {name for step in ("moved", "spread", "put back") for name in said[step]}
    assert stayed <= {"pages", "strayed", "ENOENT", "EFAULT"}
    assert said["pgbench"] == [0, f"{CLIENTS * TRANSACTIONS}/{CLIENTS * TRANSACTIONS}", "0"]
    assert len(set(said["sums"])) == 1
    assert said["complaints"] == []
