"""Install the Debian packages that tests run programs of, where that can be done.

    tools/debian.py LIST

LIST is a file with a package a line; `#` begins a comment. Standard library only. Exit code: 0 if
all are there at the end, else 1 with one line that says which are left out, and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTALL = ("apt-get", "-qq", "install", "-y", "--no-install-recommends")


def main(path: Path) -> int:
    """Install what the list names; return the exit code."""
    problem = provide(read_list(path))
    if problem:
        print(f"debian: {problem}", file=sys.stderr)
    return 1 if problem else 0


def read_list(path: Path) -> list[str]:
    """Return the packages that a file names."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def provide(packages: Sequence[str]) -> str:
    """Install those packages that are missing; return which are left out and why, or ""."""
    wanted = missing(packages)
    if not wanted:
        return ""
    left_out = f"{', '.join(wanted)} left out"
    if not shutil.which("apt-get"):
        return f"not a Debian system: {left_out}"
    if os.geteuid() != 0:
        return f"only root can install packages: {left_out}"
    if not _succeeds((*_INSTALL, *wanted)):
        # A fresh machine has no package lists yet.
        _succeeds(("apt-get", "-qq", "update"))
        _succeeds((*_INSTALL, *wanted))
    wanted = missing(packages)
    return f"apt-get cannot install all: {', '.join(wanted)} left out" if wanted else ""


def missing(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed: all of them where there is no dpkg."""
    if not shutil.which("dpkg-query"):
        return list(packages)
    query = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages)
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    there = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in there]


def _succeeds(command: Sequence[str]) -> bool:
    # In run level 1 packages start no service: a database server is for the tests to start.
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "RUNLEVEL": "1"}
    environment = os.environ | quiet
    done = subprocess.run(
        command, env=environment, check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
