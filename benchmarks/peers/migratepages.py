"""Move a child's pages by `movepages migrate` and by `migratepages`, in turns; run it emulated.

    migratepages.py PAGES ROUNDS

The child has PAGES pages, which go from node 0 to node 1 and back. Prints the wall-clock seconds of
each run as JSON: those of the two commands, and those of the mover alone, in this process.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time

from movepages.linux.machine import LinuxMachine
from movepages.placement import execute, plan_migration, select

MACHINE = LinuxMachine()
CHILD = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, len(memory), mmap.PAGESIZE):
    memory[page] = 1
print(flush=True)
sys.stdin.read()
"""


def main(pages: int, rounds: int) -> None:
    """Measure, and print."""
    command = (sys.executable, "-c", CHILD, str(pages * mmap.PAGESIZE))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        took: dict[str, list[float]] = {"mover": [], "movepages": [], "migratepages": []}
        for _ in range(rounds):
            for way, samples in took.items():
                for source, target in ((0, 1), (1, 0)):
                    began = time.monotonic()
                    move(way, child.pid, source, target)
                    samples.append(time.monotonic() - began)
        child.stdin.close()
    sys.stdout.write(json.dumps(took))


def move(way: str, pid: int, source: int, target: int) -> None:
    """Move all pages of a process from a node to another."""
    match way:
        case "mover":
            task = MACHINE.task(pid)
            plan = plan_migration(MACHINE, task, select.everything(), {source}, {target})
            execute(plan, MACHINE)
        case "movepages":
            arguments = ("migrate", str(pid), "--from", str(source), "--to", str(target))
            command = (sys.executable, "-m", "movepages", *arguments)
            subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # 1: shared pages stay
        case _:
            command = ("migratepages", str(pid), str(source), str(target))
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
