"""Sixteen threads, each with a policy of its own, touch pages of one area in between one another.

    threads.py PAGES

Prints a line of JSON: how many statuses were looked at, and those that are wrong, each as
[thread, status, wanted].
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numa

THREADS = 16
NODES = 4


def node_of_cpu(cpu):
    """Return the node that sysfs says a CPU is on."""
    links = Path(f"/sys/devices/system/cpu/cpu{cpu}").glob("node*")
    return int(next(links).name[4:])


def choose(number, area):
    """Set the policy of the calling thread by its number; return the node its pages belong on."""
    kind, node = divmod(number, NODES)
    if kind == 0:
        numa.set_policy(numa.BIND, node)
        return node
    if kind == 1:
        numa.set_policy(numa.PREFERRED, node)
        return node
    if kind == 2:
        # Linux 6.12 interleaves by page number; those of one thread are all odd, or all even.
        pair = sorted((node, (node + 1) % NODES))
        numa.set_policy(numa.INTERLEAVE, *pair)
        return pair[(area // numa.PAGE + number) % 2]
    cpus = sorted(os.sched_getaffinity(0))
    cpu = cpus[node % len(cpus)]
    os.sched_setaffinity(0, {cpu})
    numa.set_policy(numa.LOCAL if node % 2 else numa.DEFAULT)
    return node_of_cpu(cpu)


def main(pages):
    """Start the threads together, and count what is wrong once all have ended."""
    area = numa.map_pages(THREADS * pages)
    together = threading.Barrier(THREADS)
    wanted = [-1] * THREADS

    def work(number):
        wanted[number] = choose(number, area)
        together.wait()
        for page in range(pages):
            numa.touch(area + (page * THREADS + number) * numa.PAGE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = numa.statuses(numa.pages_from(area, THREADS * pages))
    wrong = [
        (number, node, wanted[number])
        for number in range(THREADS)
        for node in found[number::THREADS]
        if node != wanted[number]
    ]
    sys.stdout.write(json.dumps({"looked_at": len(found), "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
