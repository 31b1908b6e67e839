"""Touches memory and prints on which nodes it is, again for each line that it reads.

    placed.py PAGES

One line of JSON: pages by node, as move_pages(2) answers.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import numa


def say(line):
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(pages):
    """Say where the pages are, until there is no more to read."""
    memory = numa.pages_from(numa.map_pages(pages), pages)
    numa.touch(memory[0], pages)
    say(json.dumps(Counter(numa.statuses(memory))))
    for _ in sys.stdin:
        say(json.dumps(Counter(numa.statuses(memory))))


if __name__ == "__main__":
    main(int(sys.argv[1]))
