"""Show what movepages is for, on one screen: `make demo`.

    python examples/demo.py          on four nodes that are emulated
    python examples/demo.py --real   on the nodes that this machine has; `make demo-lab` has four

Two programs do the work, and know of no emulator: `move_process.py` and `every_kind.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
EMULATE = (sys.executable, "-m", "movepages", "emulate", "--nodes", "4")
SEMANTICS = ("6.12", "patch", "2006")
"""Linux today, the code of the patch that brought the call, and its text."""
AS_ROOT = ("unshare", "--map-root-user")


def main() -> int:
    """Show it all; return the exit code of the first part that fails."""
    if sys.argv[1:] == ["--real"]:
        return show_move(()) or show_kinds({"": ()})
    print("$ movepages emulate --nodes 4 -- python examples/move_process.py", flush=True)
    as_root = root_of_own() if os.geteuid() else ()
    code = show_move((*EMULATE, "--")) or show_kinds(
        {name: (*EMULATE, "--pin", "--semantics", name, "--", *as_root) for name in SEMANTICS}
    )
    if not code:
        print("\nYour turn: .venv/bin/movepages emulate --nodes 4 -- PROGRAM", flush=True)
    return code


def show_move(stage: tuple[str, ...]) -> int:
    """Have a process and its data moved around; `stage` is what runs a program where it is to."""
    return start(stage, "move_process.py").wait()


def show_kinds(stages: dict[str, tuple[str, ...]]) -> int:
    """Ask on several stages for pages of each kind, and write the statuses side by side."""
    print("\nPages of each kind, asked to move to the last node, and what becomes of them:")
    said = []
    for stage in stages.values():
        program = start(stage, "every_kind.py", stdout=subprocess.PIPE)
        said.append(program.communicate()[0].splitlines())
        if program.returncode:
            return program.returncode
    if len(stages) > 1:
        print(f"  {'--semantics':25}{columns(stages)}(Linux, the patch, its text)")
    for lines in zip(*said, strict=True):
        answers = [re.split(r"  +", line) for line in lines]
        kind, _, meaning = answers[0]
        print(f"  {kind:25}{columns(status for _, status, _ in answers)}{meaning}")
    return 0


def start(stage: tuple[str, ...], script: str, stdout: int | None = None) -> subprocess.Popen[str]:
    """Start one of the two programs."""
    sys.stdout.flush()
    command = [*stage, sys.executable, HERE / script]
    return subprocess.Popen(command, stdout=stdout, text=True)  # noqa: S603 - ours


def columns(cells: Iterable[str]) -> str:
    """Put cells into columns."""
    return "".join(f"{cell:7}" for cell in cells)


def root_of_own() -> tuple[str, ...]:
    """Return what makes a user root over programs of his own, if there is such and he may.

    For MOVE_ALL takes CAP_SYS_NICE.
    """
    if not shutil.which(AS_ROOT[0]):
        return ()
    tried = subprocess.run([*AS_ROOT, "true"], capture_output=True, check=False)  # noqa: S603
    return () if tried.returncode else AS_ROOT


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)  # Ctrl-C, or a reader that has gone: there is nobody to tell
