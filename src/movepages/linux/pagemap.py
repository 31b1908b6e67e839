"""/proc/PID/pagemap: which pages are present, and their page frames where the caller may see them.

Two ways to read it. The file has 8 bytes for each virtual page, present or not (30 ns a page on
4 KiB pages). The PAGEMAP_SCAN ioctl (Linux 6.7) returns runs of pages that match categories: 10 ns
for a present page, next to nothing for absent ones, and it knows huge mappings. It is tried first
where it helps; a kernel without it says ENOTTY.

A process that exits leaves an empty address space behind an open pagemap: both ways then end early
or answer "nothing present". Callers check that the process still lives before they trust that.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from errno import EINVAL, ENOTTY
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import (
    PAGEMAP_ENTRY_BYTES,
    PAGEMAP_PFN_MASK,
    PAGEMAP_SCAN,
    PM_SCAN_ARG,
    PageRegion,
)
from movepages.errors import UnsupportedError, call_error, no_such_process
from movepages.linux.reading import ROOT, not_permitted, process_directory, start_ticks
from movepages.linux.syscalls import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CHUNK_PAGES = 1 << 16
"""Pages read at a time: 512 KiB of entries, which stay in the cache while they are worked on."""

_REGIONS_AT_A_TIME = 4096
_SMALLEST_PAGE_BYTES = 4096
_WALK_END = 4  # index of walk_end in struct pm_scan_arg


@contextmanager
def open_pagemap(pid: int, root: Path = ROOT) -> Iterator[int]:
    """Open the pagemap of a process.

    Raises NoSuchProcessError, NotPermittedError, InvalidCallError for a kernel thread.
    """
    path = process_directory(pid, root) / "pagemap"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_such_process(pid, "open pagemap") from None
    except ProcessLookupError:  # also for a task that lives, but has no memory
        start_ticks(pid, root)
        raise call_error(
            -EINVAL,
            "open pagemap",
            detail=f"process {pid} is a kernel thread and has no memory of its own; "
            "name a process in user space",
            pid=pid,
        ) from None
    except PermissionError:
        raise not_permitted(pid, path) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_entries(descriptor: int, first_page: int, out: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Fill `out` with the entries of pages from `first_page` (address / page size) on.

    Return the part that was filled: shorter at the end of the address space, empty once the process
    has ended. Entries are described by abi.pagemap.PagemapBit.
    """
    done = os.preadv(descriptor, [out.view(np.uint8).data], first_page * PAGEMAP_ENTRY_BYTES)
    return out[: done // PAGEMAP_ENTRY_BYTES]


def chunks(
    descriptor: int, start: int, end: int, page_size_bytes: int
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Go through the entries of a range as (address, entries), the array being used again.

    Raises EOFError when the process has ended.
    """
    buffer = np.empty(CHUNK_PAGES, dtype=np.uint64)
    last = end // page_size_bytes
    for page in range(start // page_size_bytes, last, CHUNK_PAGES):
        wanted = buffer[: last - page]
        entries = read_entries(descriptor, page, wanted)
        if len(entries) < len(wanted):
            raise EOFError
        yield page * page_size_bytes, entries


def present(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which entries are of present pages (bit 63)."""
    there: NDArray[np.bool_] = entries.view(np.int64) < 0  # bit 63 is the sign
    return there


def frames(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the page frame numbers of entries of present pages; 0 without CAP_SYS_ADMIN."""
    return entries & np.uint64(PAGEMAP_PFN_MASK)


def scan(
    descriptor: int,
    start: int,
    end: int,
    *,
    require: PageRegion,
    without: PageRegion = PageRegion(0),
    any_of: PageRegion = PageRegion(0),
    tell: PageRegion = PageRegion(0),
) -> NDArray[np.uint64]:
    """Return the regions of a range that have all categories of `require` and none of `without`.

    If `any_of` names categories, a region has at least one of them as well.
    uint64[n, 3]: start, end, and which categories of `tell` hold there. Raises UnsupportedError
    where the kernel has no PAGEMAP_SCAN, before anything was returned, EOFError when the process
    has ended.
    """
    pages = max(1, (end - start) // _SMALLEST_PAGE_BYTES)  # no range has more regions
    regions = np.empty((min(pages, _REGIONS_AT_A_TIME), 3), dtype=np.uint64)
    found = []
    while start < end:
        argument = bytearray(
            PM_SCAN_ARG.pack(
                PM_SCAN_ARG.size,
                0,
                start,
                end,
                0,
                address_of(regions),
                len(regions),
                0,
                without,
                require | without,
                any_of,
                tell,
            )
        )
        try:
            count = fcntl.ioctl(descriptor, PAGEMAP_SCAN, argument)
        except ProcessLookupError:
            raise EOFError from None
        except OSError as error:
            if error.errno not in {ENOTTY, EINVAL}:
                raise
            raise UnsupportedError("this kernel has no PAGEMAP_SCAN (Linux 6.7)") from error
        found.append(regions[:count].copy())
        if count < len(regions):
            break
        # walk_end may lie before the last region: what the kernel noted when its own buffer of 512
        # regions was full is left there if it then comes to the end of the range.
        start = max(PM_SCAN_ARG.unpack(argument)[_WALK_END], int(regions[-1, 1]))
    return np.concatenate(found) if found else regions[:0]
