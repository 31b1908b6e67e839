from __future__ import annotations

import re
from pathlib import Path

import pytest

from movepages.abi.seccomp import AUDIT_ARCH
from movepages.abi.task_calls import TASK_CALL_NUMBERS

X86_64 = """
mmap 9  munmap 11  mremap 25  madvise 28  brk 12  shmdt 67  execve 59  execveat 322  getcpu 309
open 2  openat 257  openat2 437  stat 4  lstat 6  newfstatat 262  statx 332  access 21
faccessat 269  faccessat2 439  readlink 89  readlinkat 267  seccomp 317  kcmp 312
process_vm_readv 310  process_vm_writev 311  perf_event_open 298  name_to_handle_at 303
"""
"""Copied from arch/x86/entry/syscalls/syscall_64.tbl."""
GENERIC = """
mmap 222  munmap 215  mremap 216  madvise 233  brk 214  shmdt 197  execve 221  execveat 281
getcpu 168  openat 56  openat2 437  newfstatat 79  statx 291  faccessat 48  faccessat2 439
readlinkat 78  seccomp 277  kcmp 272  process_vm_readv 270  process_vm_writev 271
perf_event_open 241  name_to_handle_at 264
"""
"""Copied from include/uapi/asm-generic/unistd.h; `open` and its like are not among them."""
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def numbers(table):
    """Read a table."""
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", table)}


@pytest.mark.parametrize(
    ("machine", "table"), [("x86_64", X86_64), ("aarch64", GENERIC), ("riscv64", GENERIC)]
)
def test_numbers_are_those_of_the_kernels_tables(machine, table):
    """Every call has the number that the kernel's table gives it, and none is left out."""
    assert TASK_CALL_NUMBERS[machine] == numbers(table)


def test_machines_are_those_with_filters():
    """Numbers are known for the machines that filters can be written for."""
    assert TASK_CALL_NUMBERS.keys() == AUDIT_ARCH.keys()


@pytest.mark.host
def test_numbers_are_those_of_the_header():
    """The kernel's own header for this machine, where it is installed, has the same numbers."""
    text = HEADER.read_text() if HEADER.exists() else ""
    defined = {name: int(number) for name, number in re.findall(r"__NR_(\w+) (\d+)", text)}
    known = TASK_CALL_NUMBERS["x86_64"]
    assert {name: known[name] for name in known if name in defined} == {
        name: defined[name] for name in known if name in defined
    }
