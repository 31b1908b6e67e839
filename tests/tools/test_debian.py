"""The installer of Debian packages: what it reads, what it finds missing, and what it says."""

from __future__ import annotations

import debian
import pytest

LIST = """# programs
numactl

gcc # to compile
"""
DPKG_QUERY = """#!/bin/sh
echo 'numactl installed'
echo 'gcc config-files'
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with no programs but those that a test puts there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def put(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    return put


def test_list(tmp_path):
    """A package a line; comments and empty lines are none."""
    path = tmp_path / "list"
    path.write_text(LIST)
    assert debian.read_list(path) == ["numactl", "gcc"]


def test_nothing_is_done_for_what_is_there(machine):
    """Where dpkg knows all packages as installed, no apt-get is needed."""
    machine("dpkg-query", DPKG_QUERY)
    assert debian.provide(["numactl"]) == ""


def test_removed_package_is_missing(machine):
    """A package of which only configuration is left is not installed."""
    machine("dpkg-query", DPKG_QUERY)
    assert debian.missing(["numactl", "gcc", "stress-ng"]) == ["gcc", "stress-ng"]


def test_other_systems(machine):
    """A system without apt-get is told what is left out."""
    del machine
    assert debian.provide(["gcc"]) == "not a Debian system: gcc left out"


def test_user(machine, monkeypatch):
    """A user is told that only root can install what is missing."""
    machine("dpkg-query", DPKG_QUERY)
    machine("apt-get", "#!/bin/sh\nexit 1\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert debian.provide(["gcc"]) == "only root can install packages: gcc left out"


def test_what_apt_cannot_install(machine, monkeypatch, tmp_path):
    """It is tried, the lists are refreshed, it is tried again; then it is said."""
    log = tmp_path / "log"
    machine("dpkg-query", DPKG_QUERY)
    machine("apt-get", f'#!/bin/sh\necho "$@" >> {log}\nexit 100\n')
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert debian.provide(["numactl", "gcc"]) == "apt-get cannot install all: gcc left out"
    install = "-qq install -y --no-install-recommends gcc"
    assert log.read_text().splitlines() == [install, "-qq update", install]
