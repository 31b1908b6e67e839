from __future__ import annotations

import re
from pathlib import Path

import pytest

from movepages.abi import Capability, Mode, ModeFlag, MoveFlag, PolicyQuery

MEMPOLICY = Path("/usr/include/linux/mempolicy.h")
CAPABILITY = Path("/usr/include/linux/capability.h")


@pytest.mark.parametrize(
    ("flag", "bit"),
    [
        (MoveFlag.STRICT, 0),
        (MoveFlag.MOVE, 1),
        (MoveFlag.MOVE_ALL, 2),
        (MoveFlag.LAZY, 3),
        (ModeFlag.STATIC_NODES, 15),
        (ModeFlag.RELATIVE_NODES, 14),
        (ModeFlag.NUMA_BALANCING, 13),
        (PolicyQuery.NODE, 0),
        (PolicyQuery.ADDR, 1),
        (PolicyQuery.MEMS_ALLOWED, 2),
    ],
)
def test_flags_have_the_bits_of_mempolicy_h(flag, bit):
    """Each flag is the one bit that include/uapi/linux/mempolicy.h gives it."""
    assert flag == 1 << bit


def test_modes_count_from_default():
    """The modes have the order of the enum in include/uapi/linux/mempolicy.h of Linux 6.9."""
    assert [mode.name for mode in sorted(Mode)] == [
        "DEFAULT",
        "PREFERRED",
        "BIND",
        "INTERLEAVE",
        "LOCAL",
        "PREFERRED_MANY",
        "WEIGHTED_INTERLEAVE",
    ]
    assert [int(mode) for mode in sorted(Mode)] == list(range(7))


def test_mode_flags_and_modes_do_not_overlap():
    """A mode can be told from the flags that are or-ed into it."""
    flags = ModeFlag.NUMA_BALANCING | ModeFlag.RELATIVE_NODES | ModeFlag.STATIC_NODES
    assert not any(mode & flags for mode in Mode)


@pytest.mark.host
def test_flags_are_those_of_the_c_headers_of_this_machine():
    """Where the C headers are installed they define the same flags and modes."""
    text = MEMPOLICY.read_text(encoding="ascii") if MEMPOLICY.exists() else ""
    defined = {
        name: 1 << int(bit)
        for name, bit in re.findall(r"#define MPOL_(M?F_\w+)\s+\(1\s*<<\s*(\d+)\)", text)
    }
    for flag in MoveFlag:
        assert defined.get(f"MF_{flag.name}", flag) == flag
    for flag in (*ModeFlag, *PolicyQuery):
        assert defined.get(f"F_{flag.name}", flag) == flag
    enum = text.partition("enum {")[2].partition("MPOL_MAX")[0]
    for number, name in enumerate(re.findall(r"MPOL_(\w+)", enum)):
        assert Mode.__members__.get(name, number) == number


@pytest.mark.host
def test_capabilities_are_those_of_the_c_headers_of_this_machine():
    """Where the C headers are installed they number the capabilities the same way."""
    text = CAPABILITY.read_text(encoding="ascii") if CAPABILITY.exists() else ""
    numbers = dict(re.findall(r"#define CAP_(\w+)\s+(\d+)\n", text))
    for capability in Capability:
        assert int(numbers.get(capability.name, capability)) == capability


def test_capabilities_have_the_numbers_of_capabilities_7():
    """SYS_PTRACE, SYS_ADMIN and SYS_NICE have the bits of include/uapi/linux/capability.h."""
    assert (Capability.SYS_PTRACE, Capability.SYS_ADMIN, Capability.SYS_NICE) == (19, 21, 23)
