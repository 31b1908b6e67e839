"""System call numbers by architecture (arch/*/.../syscall*.tbl, include/uapi/asm-generic/unistd.h).

ia64 left Linux in 6.7; its numbers are those of the 2006 patch and of the last kernel that had it.
"""

CALLS = (
    "move_pages",
    "migrate_pages",
    "mbind",
    "set_mempolicy",
    "get_mempolicy",
    "set_mempolicy_home_node",
)

SYSCALL_NUMBERS: dict[str, dict[str, int]] = {
    arch: dict(zip(CALLS, numbers, strict=True))
    for arch, numbers in {
        "x86_64": (279, 256, 237, 238, 239, 450),
        "aarch64": (239, 238, 235, 237, 236, 450),
        "riscv64": (239, 238, 235, 237, 236, 450),
        "ppc64le": (301, 258, 259, 261, 260, 450),
        "s390x": (310, 287, 268, 270, 269, 450),
        "ia64": (1276, 1280, 1259, 1261, 1260, 1474),
        "i386": (317, 294, 274, 276, 275, 450),
    }.items()
}
"""Architecture (as `uname -m` says it) to call name to number."""

_ALIASES = {"i486": "i386", "i586": "i386", "i686": "i386", "arm64": "aarch64", "ppc64": "ppc64le"}


def numbers_for(machine: str) -> dict[str, int]:
    """Return the call numbers for a machine name as `uname -m` prints it; KeyError if unknown."""
    return SYSCALL_NUMBERS[_ALIASES.get(machine, machine)]
