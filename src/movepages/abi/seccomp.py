"""seccomp(2) and classic BPF as numbers and layouts.

Sources: include/uapi/linux/seccomp.h, bpf_common.h and audit.h.
"""

from enum import IntEnum, IntFlag
from struct import Struct

SECCOMP_SET_MODE_FILTER = 1


class FilterFlag(IntFlag):
    """SECCOMP_FILTER_FLAG_*: how seccomp(2) installs a filter."""

    TSYNC = 1
    LOG = 2
    SPEC_ALLOW = 4
    NEW_LISTENER = 8
    TSYNC_ESRCH = 16
    WAIT_KILLABLE_RECV = 32


RET_ALLOW = 0x7FFF0000
RET_USER_NOTIF = 0x7FC00000

NOTIF = Struct("=QII iIQ 6Q")
"""struct seccomp_notif: id, pid, flags; then seccomp_data: nr, arch, instruction pointer, args."""
NOTIF_RESP = Struct("=QqiI")
"""struct seccomp_notif_resp: id, val, error, flags."""
NOTIF_ADDFD = Struct("=QIIII")
"""struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags."""
NOTIF_ID = Struct("=Q")

NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101
NOTIF_ID_VALID = 0x40082102
NOTIF_ADDFD_IOCTL = 0x40182103
"""_IOWR('!', 0, seccomp_notif) and its followers, by the numbering that all but MIPS, PowerPC and
SPARC use."""

NOTIF_FLAG_CONTINUE = 1
ADDFD_FLAG_SEND = 2

NR_OFFSET, ARCH_OFFSET, ARGS_OFFSET = 0, 4, 16
"""Where the fields of struct seccomp_data stand, in bytes; an argument has eight."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
"""AUDIT_ARCH_* of the machines whose filters we can write, by their name in `uname -m`."""

X32_SYSCALL_BIT = 0x40000000
"""Set in the numbers of x32 calls, which have AUDIT_ARCH_X86_64 as well."""

SOCK_FILTER = Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, k."""


class Bpf(IntEnum):
    """The instructions of classic BPF that a filter here needs."""

    LOAD_WORD = 0x20
    """BPF_LD | BPF_W | BPF_ABS: load the 32 bits at offset k."""
    JUMP_EQUAL = 0x15
    """BPF_JMP | BPF_JEQ | BPF_K."""
    JUMP_AT_LEAST = 0x35
    """BPF_JMP | BPF_JGE | BPF_K."""
    JUMP_IF_SET = 0x45
    """BPF_JMP | BPF_JSET | BPF_K: if any bit of k is set."""
    RETURN = 0x06
    """BPF_RET | BPF_K."""
