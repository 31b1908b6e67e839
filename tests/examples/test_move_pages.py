"""`examples/move_pages.c`: every status and refusal, on this kernel, emulated, and in the lab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "examples" / "move_pages.c"
EMULATE = (sys.executable, "-m", "movepages", "emulate", "--nodes", "4", "--")
AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The program, in a place where any user may execute it."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed: apt-get install gcc libc6-dev")
    directory = tmp_path_factory.mktemp("move_pages")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    program = directory / "move_pages"
    flags = ("-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", program, SOURCE], check=True, timeout=50)
    return program


def said_by(*command):
    """Run a command; return its lines. Every check must have held."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.host
def test_on_this_kernel(compiled):
    """Every check that this machine has the nodes for holds natively."""
    assert ", 0 failed, " in said_by(compiled)[-1]


@pytest.mark.emulator
def test_emulated_as_root(compiled):
    """Under four emulated nodes nothing is left out: 45 checks hold where MOVE_ALL is allowed."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lines = said_by(*EMULATE, compiled)
    assert lines[0] == "4 nodes, MOVE_ALL allowed"
    assert lines[-1] == "45 checks, 0 failed, 0 left out"


@pytest.mark.emulator
def test_emulated_as_nobody(compiled):
    """Without any privilege the same holds, but that MOVE_ALL is refused."""
    drop = AS_NOBODY if os.geteuid() == 0 else ()
    lines = said_by(*drop, *EMULATE, compiled)
    assert lines[0] == "4 nodes, MOVE_ALL not allowed"
    assert lines[-1] == "43 checks, 0 failed, 0 left out"


@pytest.mark.lab
@pytest.mark.needs_nodes(4)
def test_in_the_lab(compiled):
    """On a real kernel with four nodes all 45 checks hold."""
    lines = said_by(compiled)
    assert lines[0] == "4 nodes, MOVE_ALL allowed"
    assert lines[-1] == "45 checks, 0 failed, 0 left out"
