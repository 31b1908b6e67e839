"""Flags and modes of the memory policy calls (include/uapi/linux/mempolicy.h)."""

from enum import IntEnum, IntFlag


class MoveFlag(IntFlag):
    """MPOL_MF_*: which pages move_pages(2) and mbind(2) move, and how strictly.

    move_pages takes MOVE and MOVE_ALL only; 0 acts as MOVE there. LAZY is always refused.
    """

    STRICT = 1
    MOVE = 2
    MOVE_ALL = 4
    LAZY = 8


class Mode(IntEnum):
    """MPOL_*: the policy modes of mbind(2) and set_mempolicy(2)."""

    DEFAULT = 0
    PREFERRED = 1
    BIND = 2
    INTERLEAVE = 3
    LOCAL = 4
    PREFERRED_MANY = 5
    WEIGHTED_INTERLEAVE = 6


class ModeFlag(IntFlag):
    """MPOL_F_*: flags or-ed into a mode. STATIC_NODES and RELATIVE_NODES exclude each other."""

    NUMA_BALANCING = 1 << 13
    RELATIVE_NODES = 1 << 14
    STATIC_NODES = 1 << 15


POLICY_WORDS = {
    Mode.DEFAULT: "default",
    Mode.PREFERRED: "prefer",
    Mode.BIND: "bind",
    Mode.INTERLEAVE: "interleave",
    Mode.LOCAL: "local",
    Mode.PREFERRED_MANY: "prefer (many)",
    Mode.WEIGHTED_INTERLEAVE: "weighted interleave",
}
"""What numa_maps calls each mode (policy_modes in mm/mempolicy.c)."""

POLICY_FLAG_WORDS = {
    ModeFlag.STATIC_NODES: "static",
    ModeFlag.RELATIVE_NODES: "relative",
    ModeFlag.NUMA_BALANCING: "balancing",
}
"""What it calls their flags (mpol_to_str in mm/mempolicy.c)."""


class PolicyQuery(IntFlag):
    """MPOL_F_*: what get_mempolicy(2) is asked."""

    NODE = 1
    ADDR = 2
    MEMS_ALLOWED = 4


class Capability(IntEnum):
    """CAP_*: bits of the capabilities that matter here (include/uapi/linux/capability.h)."""

    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_NICE = 23
