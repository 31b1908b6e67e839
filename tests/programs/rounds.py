"""A process whose threads check their memory while it is moved, spread, packed and followed.

    rounds.py MIB ROUNDS SEED

Four threads of a child go through MIB mebibytes, half of them in huge pages where there are such:
what each wrote the last time must be there, and something new is written. Meanwhile, in each round,
the pages of the child are moved in one of four ways. After each, the ledger must equal what
numa_maps says, and each thread must have gone through its memory once more. Ends with exit code 0
and a line of JSON, or says what was wrong.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress

import numpy as np

from movepages.linux.machine import LinuxMachine
from movepages.placement import Options, execute, plan, plan_pack, plan_spread, select
from movepages.placement.follow import plan_follow
from movepages.placement.running import running

THREADS = 4
PAGE_BYTES = mmap.PAGESIZE
HUGE_BYTES = 2 << 20
MACHINE = LinuxMachine()


class Memory:
    """Memory that a child of this process checks, mapped before it is forked."""

    def __init__(self, size_bytes):
        """Map it, its second half for huge pages."""
        whole = size_bytes + HUGE_BYTES
        self.map = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        every = np.frombuffer(self.map, np.uint8)
        skipped = -every.ctypes.data % HUGE_BYTES
        half = size_bytes // 2 // HUGE_BYTES * HUGE_BYTES
        self.map.madvise(mmap.MADV_NOHUGEPAGE)
        self.map.madvise(mmap.MADV_HUGEPAGE, skipped + half, size_bytes - half)
        # What is to be left out of core dumps is never merged with the memory beside it.
        self.map.madvise(mmap.MADV_DONTDUMP, skipped, size_bytes)
        self.words = every[skipped : skipped + size_bytes].view(np.uint64)
        self.start = every.ctypes.data + skipped
        self.range = (self.start, self.start + size_bytes)


def check(words, number, pipe):
    """Check and rewrite a part over and over: what a thread of the child does."""
    index = np.arange(len(words), dtype=np.uint64)
    stride = np.uint64(len(words))
    step = np.uint64(number << 48)
    words[:] = index + step
    while True:
        if not (words == index + step).all():
            os._exit(1)
        step += stride
        np.add(index, step, out=words)
        tell(pipe, number)


def tell(pipe, number):
    """Say that a thread has gone through its part; if nobody listens, that is all the same."""
    with suppress(BlockingIOError):
        os.write(pipe, bytes([number]))


def child(memory, pipe):
    """Start the threads, which leave the CPUs to who moves them, and never return."""
    os.nice(19)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for number, part in enumerate(np.split(memory.words, THREADS)):
        threading.Thread(target=check, args=(part, number, pipe), daemon=True).start()
    while True:
        signal.pause()


class Child:
    """The child, and the pipe on which its threads say that they have gone through their part."""

    def __init__(self, memory):
        """Fork it, and wait until all its memory has been written."""
        self.pipe, end = os.pipe()
        os.set_blocking(end, False)
        self.pid = os.fork()
        if not self.pid:
            child(memory, end)
        os.close(end)
        self.wait()

    def __enter__(self):
        """Begin a block, at whose end it is gone."""
        return self

    def __exit__(self, *_):
        """Kill it, if it has not ended."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def wait(self):
        """Wait until each thread has begun and ended a pass from now on."""
        os.set_blocking(self.pipe, False)
        try:
            while os.read(self.pipe, 65536):
                pass
        except BlockingIOError:
            os.set_blocking(self.pipe, True)
        passes = Counter()
        while len(passes) < THREADS or min(passes.values()) < 2:
            said = os.read(self.pipe, 4096)
            if not said:
                raise SystemExit("a thread has found a wrong byte")
            passes.update(said)

    def end(self):
        """End it; it must have found nothing wrong."""
        os.kill(self.pid, signal.SIGTERM)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if status:
            raise SystemExit(f"the child has ended with status {status:#x}: a wrong byte")


def planned(way, task, pages, chance):
    """Plan a round: a way to move, with nodes chosen by chance."""
    nodes = sorted(MACHINE.topology().with_memory)
    match way:
        case "move":
            return plan(MACHINE, task, pages, {chance.choice(nodes)})
        case "spread":
            return plan_spread(MACHINE, task, pages, chance.sample(nodes, chance.randint(2, 4)))
        case "pack":
            return plan_pack(MACHINE, task, pages, [chance.choice(nodes)])
        case _:
            with_cpus = [node for node in MACHINE.topology() if node.cpus]
            for thread in MACHINE.threads(task.pid):
                os.sched_setaffinity(thread.tid, chance.choice(with_cpus).cpus)
            threads = MACHINE.threads(task.pid)
            return plan_follow(MACHINE, task, pages, running(threads, MACHINE.topology()))


def by_node(memory, pid):
    """Return how much of the memory is on each node, in bytes, as numa_maps has it."""
    start, end = memory.range
    total = Counter()
    for mapping in MACHINE.mappings(pid):
        if start <= mapping.start and mapping.end <= end:
            total.update(mapping.bytes_by_node)
    return dict(total)


def expected(before, ledger):
    """Return the same as a placement from before and the ledger have it."""
    nodes = before.page_nodes()
    addresses = before.page_runs().addresses()
    sizes = np.repeat(before.page_size_bytes, before.pages)
    nodes[np.searchsorted(addresses, ledger.plan.page_runs().addresses())] = ledger.now
    return {int(node): int(sizes[nodes == node].sum()) for node in np.unique(nodes)}


def main(size_bytes, rounds, seed):
    """Do it, and print what was done."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    memory = Memory(size_bytes)
    runner = Child(memory)
    task = MACHINE.task(runner.pid)
    pages = select.within(*memory.range)
    done, moved, failed = Counter(), 0, Counter()
    with runner:
        for number in range(rounds):
            way = ("move", "spread", "pack", "follow")[number % 4]
            before = MACHINE.locate(runner.pid, [memory.range])
            ledger = execute(planned(way, task, pages, chance), MACHINE, Options(verify=True))
            found, wanted = by_node(memory, runner.pid), expected(before, ledger)
            if found != wanted:
                raise SystemExit(f"round {number} ({way}): numa_maps {found}, the ledger {wanted}")
            runner.wait()
            done[way] += 1
            moved += ledger.moved_pages
            failed.update(ledger.failed())
        runner.end()
    sys.stdout.write(json.dumps({"seed": seed, "rounds": done, "moved": moved, "failed": failed}))


if __name__ == "__main__":
    main(int(sys.argv[1]) << 20, int(sys.argv[2]), int(sys.argv[3]))
