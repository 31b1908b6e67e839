"""Runs a command under an emulator that lets all calls through: bare.py [OPTION...] -- COMMAND.

--mount binds a source over a target, --raise lets every handler raise, --broken lets the making of
the machine fail, --as-nobody gives up all privilege first; --report and --pin are those of
`movepages emulate`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from movepages.emulator.front import end_like
from movepages.emulator.replies import Continue
from movepages.emulator.run import Program, Settings, run
from movepages.errors import MovePagesError, TopologyError
from movepages.linux import libc

NOBODY = 65534
PR_SET_DUMPABLE = 4


class BareWorld:
    """A machine that looks at calls and does nothing about them."""

    def __init__(self, options):
        """Take the options of the command line."""
        if options.broken:
            raise TopologyError("no node has memory")
        self.options = options
        self.attached = {}
        self.notice = ""

    def furnish(self, _directory):
        """Return what the options say."""
        return [tuple(map(Path, pair)) for pair in self.options.mount]

    def handlers(self, _directory, *, mounted):
        """Return a handler that raises, or one that does nothing."""
        self.attached["mounted"] = mounted

        def failing(_notification):
            raise ValueError("on purpose")

        def idle(_notification):
            return Continue()

        handler = failing if getattr(self.options, "raise") else idle
        return dict.fromkeys(("move_pages", "mbind", "getcpu", "openat", "execve"), handler)

    def attach(self, pid):
        """Note what is told."""
        self.attached["pid"] = pid

    def report(self):
        """Return what was noted."""
        return self.attached


def become_nobody():
    """Give up all privilege, and be traceable by one's own again, as after an execve."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(PR_SET_DUMPABLE, 1)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mount", nargs=2, action="append", default=[])
    parser.add_argument("--as-nobody", action="store_true")
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--raise", action="store_true")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--report", type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.as_nobody:
        become_nobody()
    settings = Settings(pin=options.pin, report=options.report)
    try:
        code = run(Program.of(options.command), lambda: BareWorld(options), settings)
    except MovePagesError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if code < 0:
        end_like(-code)
    sys.exit(code)


if __name__ == "__main__":
    main()
