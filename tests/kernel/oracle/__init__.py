"""The oracle: move_pages(2) one page at a time, in plain Python, straight from the specification.

It shares nothing with `movepages.kernel` but the names of the four semantics. It is slow and has no
arrays: every step of a kernel is one statement here, in the kernel's order, so that it can be read
beside the patch (`kernel_2006`) and beside Linux 6.12 (`kernel_6_12`). The sections that comments
name are those of the specification of the kernel's semantics.
"""

from __future__ import annotations

from oracle import kernel_6_12, kernel_2006
from oracle.world import Answer, Area, Call, Node, Page, Process, World, zonelists

__all__ = [
    "Answer",
    "Area",
    "Call",
    "Node",
    "Page",
    "Process",
    "World",
    "move_pages",
    "zonelists",
]


def move_pages(semantics: str, world: World, call: Call) -> Answer:
    """Make a call in the kernel of that name; the world is changed as the kernel changes it."""
    kernels = {
        "DOCUMENTED_2006": kernel_2006.documented,
        "PATCH_2006": kernel_2006.as_coded,
        "LINUX_2_6_18": kernel_2006.released,
        "LINUX_6_12": kernel_6_12.move_pages,
    }
    return kernels[semantics](world, call)
