"""Layouts of the page-table and page-frame files (Documentation/admin-guide/mm/pagemap.rst)."""

import struct
from enum import IntEnum, IntFlag

PAGEMAP_ENTRY_BYTES = 8
PAGEMAP_PFN_MASK = (1 << 55) - 1


class PagemapBit(IntEnum):
    """Bit numbers of a /proc/PID/pagemap entry. Bits 0-54 hold the PFN, or 0 without the right."""

    SOFT_DIRTY = 55
    EXCLUSIVE = 56
    UFFD_WP = 57
    GUARD = 58
    FILE_OR_SHARED = 61
    SWAPPED = 62
    PRESENT = 63


class PageRegion(IntFlag):
    """PAGE_IS_*: the categories of a PAGEMAP_SCAN region."""

    WPALLOWED = 1 << 0
    WRITTEN = 1 << 1
    FILE = 1 << 2
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    PFNZERO = 1 << 5
    HUGE = 1 << 6
    SOFT_DIRTY = 1 << 7
    GUARD = 1 << 8


PAGEMAP_SCAN = 0xC0606610
"""ioctl request: _IOWR('f', 16, struct pm_scan_arg)."""

PM_SCAN_ARG = struct.Struct("=12Q")
"""size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
category_anyof_mask, return_mask. All u64, addresses in bytes."""

PAGE_REGION = struct.Struct("=3Q")
"""start, end, categories."""


class PageFlag(IntEnum):
    """KPF_*: bit numbers of a /proc/kpageflags entry (include/uapi/linux/kernel-page-flags.h)."""

    LOCKED = 0
    ERROR = 1
    REFERENCED = 2
    UPTODATE = 3
    DIRTY = 4
    LRU = 5
    ACTIVE = 6
    SLAB = 7
    WRITEBACK = 8
    RECLAIM = 9
    BUDDY = 10
    MMAP = 11
    ANON = 12
    SWAPCACHE = 13
    SWAPBACKED = 14
    COMPOUND_HEAD = 15
    COMPOUND_TAIL = 16
    HUGE = 17
    UNEVICTABLE = 18
    HWPOISON = 19
    NOPAGE = 20
    KSM = 21
    THP = 22
    OFFLINE = 23
    ZERO_PAGE = 24
    IDLE = 25
    PGTABLE = 26
    RESERVED = 32
