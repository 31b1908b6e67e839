from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from movepages.abi import CALLS, SYSCALL_NUMBERS, numbers_for

KERNEL_TABLES = """
# arch/x86/entry/syscalls/syscall_64.tbl
x86_64   move_pages 279  migrate_pages 256  mbind 237  set_mempolicy 238  get_mempolicy 239
# arch/x86/entry/syscalls/syscall_32.tbl
i386     move_pages 317  migrate_pages 294  mbind 274  set_mempolicy 276  get_mempolicy 275
# include/uapi/asm-generic/unistd.h
aarch64  move_pages 239  migrate_pages 238  mbind 235  set_mempolicy 237  get_mempolicy 236
riscv64  move_pages 239  migrate_pages 238  mbind 235  set_mempolicy 237  get_mempolicy 236
# arch/powerpc/kernel/syscalls/syscall.tbl
ppc64le  move_pages 301  migrate_pages 258  mbind 259  set_mempolicy 261  get_mempolicy 260
# arch/s390/kernel/syscalls/syscall.tbl
s390x    move_pages 310  migrate_pages 287  mbind 268  set_mempolicy 270  get_mempolicy 269
# arch/ia64/kernel/syscalls/syscall.tbl, where 1024 is to be added
ia64     move_pages 252  migrate_pages 256  mbind 235  set_mempolicy 237  get_mempolicy 236
"""
"""Copied from the kernel's own tables. set_mempolicy_home_node is 450 in all of them since 5.17."""

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "i386": Path("/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
}


def table_rows():
    """Read the tables above as a list of (architecture, call, number)."""
    rows = []
    for line in KERNEL_TABLES.strip().splitlines():
        if line.startswith("#"):
            continue
        arch, *words = line.split()
        offset = 1024 if arch == "ia64" else 0
        for call, number in zip(words[::2], words[1::2], strict=True):
            rows.append((arch, call, int(number) + offset))
        rows.append((arch, "set_mempolicy_home_node", 450 + offset))
    return rows


@pytest.mark.parametrize(("arch", "call", "number"), table_rows())
def test_numbers_are_those_of_the_kernels_tables(arch, call, number):
    """Every call has the number that the kernel's table of the architecture gives it."""
    assert SYSCALL_NUMBERS[arch][call] == number


def test_every_architecture_has_every_call():
    """The tables above leave no architecture out, and no call of one."""
    assert {(arch, call) for arch, call, _ in table_rows()} == {
        (arch, call) for arch in SYSCALL_NUMBERS for call in CALLS
    }


@pytest.mark.parametrize("arch", list(SYSCALL_NUMBERS))
def test_numbers_of_one_architecture_differ(arch):
    """No two calls of an architecture share a number."""
    numbers = SYSCALL_NUMBERS[arch].values()
    assert len(set(numbers)) == len(CALLS)


@pytest.mark.host
def test_numbers_are_those_of_the_c_headers_of_this_machine():
    """Where the C headers are installed they give the same numbers."""
    for arch, path in HEADERS.items():
        text = path.read_text(encoding="ascii") if path.exists() else ""
        numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", text))
        for call in numbers.keys() & set(CALLS):
            assert SYSCALL_NUMBERS[arch][call] == int(numbers[call])


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("i486", "i386"), ("i686", "i386"), ("arm64", "aarch64"), ("ppc64", "ppc64le")],
)
def test_other_names_of_an_architecture_are_known(machine, arch):
    """What `uname -m` and others call an architecture leads to its numbers."""
    assert numbers_for(machine) == SYSCALL_NUMBERS[arch]


@pytest.mark.parametrize("machine", ["", "pdp11", "X86_64"])
def test_an_unknown_machine_is_a_key_error(machine):
    """No number is guessed for a machine that is not in the table."""
    with pytest.raises(KeyError):
        numbers_for(machine)


@pytest.mark.host
def test_this_machine_is_known():
    """The calls have numbers on the machine that this runs on."""
    assert set(numbers_for(os.uname().machine)) == set(CALLS)
