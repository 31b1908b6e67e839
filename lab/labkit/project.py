"""What the guest is to see of the host: the project, its virtual environment, a Python."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Project:
    """Where things are; the same paths on the host and in the guest."""

    root: Path
    venv: Path | None
    python: Path

    @property
    def keeps(self) -> tuple[Path, ...]:
        """Directories that the guest must keep visible, whatever it mounts over their parents."""
        wanted = [self.root, LAB, self.python.parent.parent]
        if self.venv:
            # A virtual environment's python is a link into the installation it was made from.
            wanted += [self.venv, (self.venv / "bin" / "python").resolve().parent.parent]
        return outermost(wanted)

    def environment(self, topology: str, kernel: str) -> dict[str, str]:
        """Return the environment of a command; nothing of the caller's leaks into it."""
        first = self.venv / "bin" if self.venv else self.python.parent
        variables = {
            "PATH": f"{first}:{_SYSTEM_PATH}",
            "HOME": "/tmp/home",  # noqa: S108 - the guest's, made by pid1
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "COLUMNS": str(shutil.get_terminal_size().columns),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MOVEPAGES_LAB": topology,
            "MOVEPAGES_LAB_KERNEL": kernel,
        }
        if self.venv:
            variables["VIRTUAL_ENV"] = str(self.venv)
        return variables


def find_project() -> Project:
    """Return the project that this lab belongs to, with the Python that runs the launcher.

    Its virtual environment is the active one, else that of the launcher, else .venv.
    """
    root = LAB.parent
    venvs = [Path(os.environ.get("VIRTUAL_ENV", "/")), root / ".venv"]
    if sys.prefix != sys.base_prefix:
        venvs.insert(1, Path(sys.prefix))
    venv = next((v.absolute() for v in venvs if (v / "pyvenv.cfg").exists()), None)
    # The file behind all links: a shim or a virtual environment's link is not what init can be.
    return Project(root, venv, Path(sys.executable).resolve())


def outermost(paths: list[Path]) -> tuple[Path, ...]:
    """Return the paths without those that lie below another; system directories are left out."""
    own = [p for p in paths if p not in (Path("/"), Path("/usr"))]
    return tuple(sorted({p for p in own if not any(q != p and p.is_relative_to(q) for q in own)}))
