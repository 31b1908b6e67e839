"""The recorded answers of a real kernel: JSON files with a header, written by `record.py` alone."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_OBSERVED = Path(__file__).resolve().parent.parent / "observed"
SCENARIOS = _OBSERVED / "linux-6.12.json"
"""The lines of each scenario, by its name."""
PROGRAMS = _OBSERVED / "linux-6.12-programs.json"
"""Digests of the answers to each random program, by its seed."""


def recorded(path: Path) -> dict[str, Any]:
    """Return the recorded answers by name."""
    return json.loads(path.read_text(encoding="utf-8"))["answers"]


def write_recording(path: Path, command: str, answers: dict[str, Any]) -> None:
    """Write a recording, with the kernel, the command and the date."""
    header = {
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": "lab topology 4node: nodes 0 and 1 with a CPU each, 2 and 3 memory only",
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
    }
    content = {"header": header, "answers": answers}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
