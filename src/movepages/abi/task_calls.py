"""Numbers of system calls about tasks, memory and files, by architecture.

Those that the emulator watches or makes itself, besides the NUMA calls in `abi.syscalls`. Sources:
arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h. A call that an
architecture does not have is left out.
"""

_GENERIC = {
    "getcpu": 168,
    "mmap": 222,
    "munmap": 215,
    "mremap": 216,
    "madvise": 233,
    "brk": 214,
    "shmdt": 197,
    "execve": 221,
    "execveat": 281,
    "openat": 56,
    "openat2": 437,
    "newfstatat": 79,
    "statx": 291,
    "faccessat": 48,
    "faccessat2": 439,
    "readlinkat": 78,
    "seccomp": 277,
    "kcmp": 272,
    "name_to_handle_at": 264,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "perf_event_open": 241,
}

TASK_CALL_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "getcpu": 309,
        "mmap": 9,
        "munmap": 11,
        "mremap": 25,
        "madvise": 28,
        "brk": 12,
        "shmdt": 67,
        "execve": 59,
        "execveat": 322,
        "open": 2,
        "openat": 257,
        "openat2": 437,
        "stat": 4,
        "lstat": 6,
        "newfstatat": 262,
        "statx": 332,
        "access": 21,
        "faccessat": 269,
        "faccessat2": 439,
        "readlink": 89,
        "readlinkat": 267,
        "seccomp": 317,
        "kcmp": 312,
        "name_to_handle_at": 303,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "perf_event_open": 298,
    },
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}
"""Architecture (as `uname -m` says it) to call name to number."""
