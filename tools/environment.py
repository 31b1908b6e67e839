"""Make .venv and install this project into it, with the dependency groups asked for.

    tools/environment.py [core] [test] [lint] [docs]

Standard library only: it runs on a machine that has nothing yet. Groups (PEP 735) are read here
because the pip that comes with Python 3.11 cannot. What is complete gets a stamp in .venv, which
the Makefile compares with pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

Command = Sequence[str | Path]
Group = list[str | dict[str, str]]


class SetupError(Exception):
    """The environment cannot be made; the message is one line saying what is missing."""


def main(names: list[str]) -> int:
    """Make the environment complete for some groups; return the exit code."""
    started = time.monotonic()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [name for name in names if name != "core"]
    try:
        included = with_included(wanted, groups)
        ensure_venv()
        install(requirements(included, groups))
    except SetupError as problem:
        print(f"setup: {problem}", file=sys.stderr)
        return 1
    for name in ["core", *included]:
        (VENV / f"{name}.stamp").touch()
    version = sys.version.split()[0]
    took = time.monotonic() - started
    print(f"setup: .venv has {', '.join(['core', *included])} (Python {version}, {took:.0f} s)")
    return 0


def with_included(names: list[str], groups: dict[str, Group]) -> list[str]:
    """Return the groups together with those they include, each once."""
    found: list[str] = []
    for name in names:
        if name not in groups:
            raise SetupError(f"no group {name!r}; there are: {', '.join(groups)}")
        inner = [entry["include-group"] for entry in groups[name] if isinstance(entry, dict)]
        found += [one for one in [*with_included(inner, groups), name] if one not in found]
    return found


def requirements(names: list[str], groups: dict[str, Group]) -> list[str]:
    """Return the requirements of the groups, each once."""
    every = [entry for name in names for entry in groups[name] if isinstance(entry, str)]
    return list(dict.fromkeys(every))


def ensure_venv() -> None:
    """Make .venv if it is not there, or if its Python no longer runs."""
    if _succeeds((PYTHON, "-c", "import pip")):
        return
    ensure_ensurepip()
    _run((sys.executable, "-m", "venv", "--clear", VENV), "cannot make .venv")


def ensure_ensurepip() -> None:
    """Install what Debian splits off Python's venv module, where that is missing and allowed."""
    works = (sys.executable, "-c", "import ensurepip; ensurepip.version()")
    if _succeeds(works):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"Python has no ensurepip: install {package}, or set PYTHON to another")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt_install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", package]
    if not _succeeds(apt_install, environment):
        # A fresh machine has no package lists yet.
        _run(["apt-get", "-qq", "update"], "apt-get has no package lists", environment)
        _run(apt_install, f"Python has no ensurepip and {package} cannot be got", environment)
    if not _succeeds(works):
        raise SetupError(f"{sys.executable} has no ensurepip, even with {package} installed")


def install(packages: list[str]) -> None:
    """Install the project, editable, and the packages."""
    print("setup: installing packages into .venv", flush=True)
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "-qq")
    _run((*pip, "--editable", ROOT, *packages), "pip could not install the packages")


def _run(command: Command, problem: str, env: dict[str, str] | None = None) -> None:
    """Run a command, showing only what it complains of; raise SetupError if it fails."""
    nowhere = subprocess.DEVNULL
    if subprocess.run(command, env=env, check=False, stdin=nowhere, stdout=nowhere).returncode:
        raise SetupError(problem)


def _succeeds(command: Command, env: dict[str, str] | None = None) -> bool:
    """Return whether a command runs and succeeds; what it says is not shown."""
    try:
        done = subprocess.run(
            command, env=env, check=False, capture_output=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
