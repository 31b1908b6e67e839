"""A family of processes: forks, copies on write, an exec, shared memory, and moves for all of them.

    family.py PAGES

Child n of four has the policy bind:n. Prints a line of JSON: how many statuses were looked at, and
those that are wrong, each as [what, status, wanted].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numa

CHILDREN = 4
PLACED = Path(__file__).with_name("placed.py")


class Findings:
    """What was looked at, and what of it was wrong."""

    def __init__(self):
        """Begin with nothing."""
        self.looked_at, self.wrong = 0, []

    def expect(self, what, statuses, wanted):
        """Compare statuses, all of which should be the same or as listed."""
        wanted = wanted if isinstance(wanted, list) else [wanted] * len(statuses)
        self.looked_at += len(statuses)
        pairs = zip(statuses, wanted, strict=True)
        self.wrong += [(what, status, want) for status, want in pairs if status != want]

    def merge(self, others):
        """Add what another process has found."""
        self.looked_at += others["looked_at"]
        self.wrong += others["wrong"]


class Child:
    """A forked child that goes from step to step with its parent, and tells at the end."""

    def __init__(self, body):
        """Fork; `body` is a generator function of its findings."""
        (child_reads, self._go), (self._told, child_writes) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)
            self._live(body, child_reads, child_writes)
        os.close(child_reads)
        os.close(child_writes)

    @staticmethod
    def _live(body, reads, writes):
        findings = Findings()
        for _ in body(findings):
            os.write(writes, b".")
            os.read(reads, 1)
        os.write(writes, json.dumps(vars(findings)).encode())
        os._exit(0)

    def wait(self):
        """Wait until it has made a step."""
        assert os.read(self._told, 1) == b"."

    def go_on(self):
        """Let it make the next."""
        os.write(self._go, b".")

    def end(self):
        """Return what it has found."""
        with os.fdopen(self._told) as told:
            findings = json.loads(told.read())
        os.waitpid(self.pid, 0)
        return findings


def main(pages):
    """Live through it, and print what was found."""
    findings = Findings()
    numa.set_policy(numa.BIND, 0)
    inherited = numa.pages_from(numa.map_pages(pages), pages)
    shared = numa.pages_from(numa.map_pages(pages, shared=True), pages)
    half = pages // 2
    numa.touch(inherited[0], pages)
    numa.bind(shared[0], half, numa.BIND, 1)
    numa.bind(shared[half], pages - half, numa.INTERLEAVE, 2, 3)
    by_policy = [1] * half + [2 + page % 2 for page in range(half, pages)]

    def child_of(number):
        def body(mine):
            numa.set_policy(numa.BIND, number)
            own = numa.pages_from(numa.map_pages(pages), pages)
            numa.touch(own[0], pages)
            numa.touch(inherited[0], half, value=8)
            part = shared[number::CHILDREN]
            for page in part:
                numa.touch(page)
            mine.expect("own pages", numa.statuses(own), number)
            mine.expect("written since the fork", numa.statuses(inherited[:half]), number)
            mine.expect("not written since", numa.statuses(inherited[half:]), 0)
            mine.expect("shared memory", numa.statuses(part), by_policy[number::CHILDREN])
            said = subprocess.run(
                [sys.executable, "-S", PLACED, str(pages)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
            ).stdout
            mine.expect("after exec", [json.loads(said)], {str(number): pages})
            yield
            mine.expect("shared memory after MOVE_ALL", numa.statuses(part), 0)
            mine.expect("moved for all", numa.statuses(inherited[half:]), 3)
            mine.expect("own copies stay", numa.statuses(inherited[:half]), number)
            mine.expect("own pages to another", numa.statuses(own, [2] * pages), 2)

        return body

    children = [Child(child_of(number)) for number in range(CHILDREN)]
    for child in children:
        child.wait()
    numa.touch(shared[0], pages)
    findings.expect("shared memory of all", numa.statuses(shared), by_policy)
    findings.expect("pages of the parent", numa.statuses(inherited), 0)
    refused = numa.statuses(inherited[half:], [3] * (pages - half))
    findings.expect("shared pages without MOVE_ALL", refused, -13)
    moved = numa.statuses(shared, [0] * pages, numa.MOVE_ALL)
    findings.expect("shared memory, moved", moved, 0)
    moved = numa.statuses(inherited[half:], [3] * (pages - half), numa.MOVE_ALL)
    findings.expect("shared pages, moved", moved, 3)
    for child in children:
        child.go_on()
    for child in children:
        findings.merge(child.end())
    findings.expect("asked at the end", numa.statuses(inherited), [0] * half + [3] * (pages - half))
    sys.stdout.write(json.dumps(vars(findings)) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
