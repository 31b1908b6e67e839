"""The command line: one module for each subcommand.

A subcommand checks its arguments, collects a snapshot from the `Machine` it is handed, and has it
rendered by the module of `movepages.report` for it. It never reads the system itself.
"""

from movepages.cli.app import main

__all__ = ["main"]
