"""The kernel's page-migration subsystem, in Python: nodes, frames, address spaces, system calls.

The names below are loaded when they are first used: the emulator takes the system calls of this
package without the machine in memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from movepages.kernel.machine import SimulatedMachine
    from movepages.kernel.semantics import DOCUMENTED_2006, LINUX_2_6_18, LINUX_6_12, PATCH_2006

__all__ = ["DOCUMENTED_2006", "LINUX_2_6_18", "LINUX_6_12", "PATCH_2006", "SimulatedMachine"]


def __getattr__(name: str) -> Any:
    """Load what a name stands for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "machine" if name == "SimulatedMachine" else "semantics"
    return getattr(import_module(f"{__name__}.{module}"), name)
