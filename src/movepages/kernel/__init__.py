"""The kernel's page-migration subsystem, in Python: nodes, frames, address spaces, system calls."""

from movepages.kernel.machine import SimulatedMachine
from movepages.kernel.semantics import DOCUMENTED_2006, LINUX_2_6_18, LINUX_6_12, PATCH_2006

__all__ = ["DOCUMENTED_2006", "LINUX_2_6_18", "LINUX_6_12", "PATCH_2006", "SimulatedMachine"]
