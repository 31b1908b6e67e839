"""/proc/kpageflags: what the kernel knows of a page frame. For root only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from movepages.abi.pagemap import PageFlag
from movepages.linux.reading import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ENTRY_BYTES = 8


def read_flags(frames: NDArray[np.uint64], root: Path = ROOT) -> NDArray[np.uint64]:
    """Return the flags of page frames, uint64[n], bits as in abi.pagemap.PageFlag.

    Frames beyond the machine's memory have NOPAGE. Raises PermissionError, FileNotFoundError.
    """
    flags = np.full(len(frames), 1 << PageFlag.NOPAGE, dtype=np.uint64)
    descriptor = os.open(root / "proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for index, frame in enumerate(frames.tolist()):
            entry = os.pread(descriptor, _ENTRY_BYTES, frame * _ENTRY_BYTES)
            if len(entry) == _ENTRY_BYTES:
                flags[index] = np.frombuffer(entry, dtype=np.uint64)[0]
    finally:
        os.close(descriptor)
    return flags


def read_run(first_frame: int, count: int, root: Path = ROOT) -> NDArray[np.uint64]:
    """Return the flags of page frames side by side, uint64[n]: less than `count` where memory ends.

    Raises PermissionError, FileNotFoundError.
    """
    descriptor = os.open(root / "proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, count * _ENTRY_BYTES, first_frame * _ENTRY_BYTES)
    finally:
        os.close(descriptor)
    return np.frombuffer(data, dtype=np.uint64)


def has(flags: NDArray[np.uint64], flag: PageFlag) -> NDArray[np.bool_]:
    """Tell which frames have a flag."""
    having: NDArray[np.bool_] = (flags >> np.uint64(flag)) & np.uint64(1) == 1
    return having
