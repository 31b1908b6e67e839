"""Moves its own memory with four workers while a thread writes to it, and prints what came of it.

One line of JSON: pages that moved and that stayed, whether the ledger says where they are, and
whether the bytes are those that were written last.
"""

from __future__ import annotations

import json
import mmap
import sys
import threading

import numpy as np

from movepages.linux.machine import LinuxMachine
from movepages.placement import Options, make_plan
from movepages.placement.crew import Crew
from movepages.placement.parallel import execute_in_parallel
from movepages.values import NO_NODE, Placement

PAGE, PAGES, ROUNDS = mmap.PAGESIZE, 1000, 2

held = mmap.mmap(-1, PAGES * PAGE)
held.madvise(mmap.MADV_NOHUGEPAGE)  # or pages would go to their nodes by 512
words = np.frombuffer(held, dtype=np.uint64).reshape(PAGES, PAGE // 8)
words[:] = np.arange(PAGES, dtype=np.uint64)[:, None]

machine = LinuxMachine()
addresses = (words.ctypes.data + np.arange(PAGES) * PAGE).astype(np.uint64)
ones = np.ones(PAGES, np.int64)
over, added = threading.Event(), 0


def write():
    """Add 1 to a word of each page, again and again."""
    global added  # noqa: PLW0603 - the one writer counts its rounds
    while not over.is_set():
        words[:, 7] += 1
        added += 1


writer = threading.Thread(target=write)
writer.start()
said = {"moved": [], "stayed": 0, "true": True}
for turn in range(ROUNDS):
    placement = Placement(addresses, ones, ones * PAGE, np.full(PAGES, NO_NODE, np.int32))
    targets = np.resize(np.int32([1, 2, 3, turn]), PAGES)
    plan = make_plan(machine.task(0).id, placement, targets)
    options = Options(least_batch_pages=50, largest_batch_pages=50)
    ledger = execute_in_parallel(plan, machine, options, crew=Crew(4))
    now = machine.query_pages(0, ledger.plan.page_runs().addresses()).status
    said["moved"].append(ledger.moved_pages)
    said["stayed"] += PAGES - ledger.moved_pages
    said["true"] &= bool((now == ledger.to).all() and ledger.calls == PAGES // 50)
over.set()
writer.join()

expected = np.repeat(np.arange(PAGES, dtype=np.uint64)[:, None], PAGE // 8, axis=1)
expected[:, 7] += np.uint64(added)
said["intact"] = bool((words == expected).all())
sys.stdout.write(json.dumps(said) + "\n")
