"""PROCMAP_QUERY, the ioctl of /proc/PID/maps (Linux 6.11). Source: include/uapi/linux/fs.h."""

from enum import IntFlag
from struct import Struct

PROCMAP_QUERY = 0xC0686611
"""ioctl request: _IOWR('f', 17, struct procmap_query)."""

PROCMAP_QUERY_ARG = Struct("=9Q4I2Q")
"""size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
dev_major, dev_minor, vma_name_size, build_id_size; vma_name_addr, build_id_addr."""

COVERING_OR_NEXT_VMA = 0x10
"""Query flag: where no VMA covers the address, return the next one."""

PATH_MAX = 4096
"""The longest name that the kernel returns, its NUL included (include/uapi/linux/limits.h)."""


class VmaFlag(IntFlag):
    """PROCMAP_QUERY_VMA_*: what may be done with the memory, and whether it is shared."""

    READABLE = 1
    WRITABLE = 2
    EXECUTABLE = 4
    SHARED = 8
