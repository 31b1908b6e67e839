"""Starts a program, looks at it with numastat, moves it with migratepages, and looks again.

    neighbours.py PAGES FROM TO COMMAND ARGS...

Prints a line of JSON: what `placed.py` says before and after, and what numastat said.
"""

from __future__ import annotations

import json
import subprocess
import sys


def megabytes(pid):
    """Return what numastat says of a process, by node, in MB: the row of private memory."""
    said = subprocess.run(["numastat", "-p", str(pid)], capture_output=True, text=True, check=True)
    row = next(line for line in said.stdout.splitlines() if line.startswith("Private"))
    return [float(word) for word in row.split()[1:-1]]


def main(pages, source, target, *command):
    """Watch the pages of the command move."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, pages], text=True, **pipes) as held:
        before = json.loads(held.stdout.readline())
        seen_before = megabytes(held.pid)
        subprocess.run(["migratepages", str(held.pid), source, target], check=True)
        held.stdin.write("again\n")
        held.stdin.flush()
        after = json.loads(held.stdout.readline())
        seen_after = megabytes(held.pid)
    sys.stdout.write(
        json.dumps({"before": before, "after": after, "numastat": [seen_before, seen_after]}) + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
