"""Programs under the emulator, by its own command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

MOVEPAGES = (sys.executable, "-m", "movepages")
NOBODY = "65534"
AS_NOBODY = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


def run(*command, as_nobody=False, timeout=50, **settings):
    """Run a command and return what came of it, as text; it must have ended in time."""
    return subprocess.run(
        [*(AS_NOBODY if as_nobody and os.geteuid() == 0 else ()), *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        **settings,
    )


@pytest.fixture
def native():
    """Return a function that runs a command without the emulator."""
    return run


@pytest.fixture
def emulate():
    """Return a function that runs a command under the emulator, and demands that it served all."""

    def ran(*command, nodes=4, options=(), **settings):
        machine = () if nodes is None else ("--nodes", nodes)
        done = run(*MOVEPAGES, "emulate", *machine, *options, "--", *command, **settings)
        assert "movepages:" not in done.stderr, done.stderr
        return done

    return ran


@pytest.fixture
def program():
    """Return a function that finds a program of a package, and leaves the test out without it."""

    def found(name, package):
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed: apt-get install {package}")
        return path

    return found
