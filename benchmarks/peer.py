"""The peer in C: compiled on the spot, and loaded into this process."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness import LeftOutError

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).resolve().parent / "peers" / "c" / "move_pages.c"
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


class CPeer:
    """move_pages(2) called from C."""

    def __init__(self, library: Path) -> None:
        """Load the compiled library."""
        self._time_calls = ctypes.CDLL(str(library))["time_calls"]
        pointer = ctypes.c_void_p
        self._time_calls.argtypes = (
            *(ctypes.c_int, ctypes.c_ulong, pointer, pointer, pointer),
            *(ctypes.c_int, ctypes.c_long),
        )
        self._time_calls.restype = ctypes.c_longlong

    def sample(
        self, count: int, pages: int, nodes: int | None, status: int, flags: int, calls: int
    ) -> Callable[[], float]:
        """Return a way to time calls on this process: CPU seconds a call. Arrays by address."""

        def sample() -> float:
            took_ns = self._time_calls(0, count, pages, nodes, status, flags, calls)
            if took_ns < 0:
                raise OSError(-took_ns, os.strerror(-took_ns))
            return float(took_ns / calls / 1e9)

        return sample


def build() -> CPeer:
    """Compile the peer and load it. Raises LeftOutError where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LeftOutError("there is no C compiler to compare with: install gcc")
    with tempfile.TemporaryDirectory(prefix="movepages-bench-") as folder:
        library = Path(folder) / "peer.so"
        subprocess.run([compiler, *_FLAGS, "-o", library, SOURCE], check=True)
        return CPeer(library)  # once loaded, the file is not needed
