"""A process that checks its own memory, over and over: something to move around.

    python examples/worker.py [MIB]

It fills MIB mebibytes (16), says its pid and where they are, and goes through them round by round.
In each round every page must hold what the round before wrote there, and gets something new. So a
page that is lost, or a copy that misses the last write, counts as an error.

SIGUSR1 makes it say how far it is; SIGTERM or Ctrl-C ends it with the verdict, and exit code 1 if
there were errors. Either waits for a whole round that begins after the signal.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys

PAGE_BYTES = mmap.PAGESIZE


class Worker:
    """Memory that is checked and rewritten, and what was found."""

    def __init__(self, mib: int) -> None:
        """Map memory of its own and fill it: round 0."""
        self.pages = (mib << 20) // PAGE_BYTES
        self.memory = mmap.mmap(
            -1, self.pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)  # each page can be moved by itself
        self.rounds = 0
        self.errors = 0
        self.ended = False
        self.asked = False
        for page in range(self.pages):
            start = page * PAGE_BYTES
            self.memory[start : start + PAGE_BYTES] = self._content(0, page)

    @property
    def range(self) -> str:
        """Where its memory is, as `movepages move` takes it: START-END in hexadecimal."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        return f"{start:x}-{start + len(self.memory):x}"

    def run(self) -> None:
        """Check and rewrite until a signal ends it."""
        while not self.ended:
            asked, self.asked = self.asked, False
            self._check_all()
            if asked:
                self.tell()
        self._check_all()

    def end(self, *_: object) -> None:
        """End after one more round: a signal handler."""
        self.ended = True

    def ask(self, *_: object) -> None:
        """Say how far it is after one more round: a signal handler."""
        self.asked = True

    def tell(self) -> None:
        """Say how often all memory was checked, and how many pages were wrong."""
        print(f"checked {self.rounds} times, {self.errors} errors", flush=True)

    def _check_all(self) -> None:
        for page in range(self.pages):
            start = page * PAGE_BYTES
            if self.memory[start : start + PAGE_BYTES] != self._content(self.rounds, page):
                self.errors += 1
            self.memory[start : start + PAGE_BYTES] = self._content(self.rounds + 1, page)
        self.rounds += 1

    def _content(self, written_in: int, page: int) -> bytes:
        """What a round writes into a page: a number of their own, all over."""
        number = written_in * self.pages + page
        return number.to_bytes(8, sys.byteorder) * (PAGE_BYTES // 8)


def main() -> int:
    """Work until a signal comes; return the exit code."""
    worker = Worker(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
    signal.signal(signal.SIGUSR1, worker.ask)
    signal.signal(signal.SIGTERM, worker.end)
    signal.signal(signal.SIGINT, worker.end)
    print(f"pid {os.getpid()} memory {worker.range}", flush=True)
    worker.run()
    worker.tell()
    return 1 if worker.errors else 0


if __name__ == "__main__":
    sys.exit(main())
