"""How fast it starts, and what it loads: seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from movepages.cli.app import SUBCOMMANDS

BUDGET_SECONDS = 0.150
PROBE = """
import json, resource, sys
from movepages.cli import main
code = main(sys.argv[1:])
sys.stdout.flush()
used = resource.getrusage(resource.RUSAGE_SELF)
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "rich", "msgspec"})
ours = sorted(name for name in sys.modules if name.startswith("movepages.cli."))
said = {"code": code, "cpu": used.ru_utime + used.ru_stime, "loaded": loaded, "ours": ours}
print(json.dumps(said), file=sys.stderr)
"""


def probe(*arguments):
    """Run `movepages` in a fresh interpreter and return what it used and loaded."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(ended.stderr.splitlines()[-1])


def quickest(*arguments):
    """Return the least CPU time of three runs: what the program needs, and not its neighbours."""
    return min((probe(*arguments) for _ in range(3)), key=lambda seen: seen["cpu"])


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in SUBCOMMANDS)])
def test_help_is_quick(arguments):
    """--help takes less than 150 ms of CPU, the interpreter included, and loads nothing big."""
    seen = quickest(*arguments)
    assert (seen["code"], seen["loaded"]) == (0, [])
    assert seen["cpu"] < BUDGET_SECONDS


def test_help_loads_no_subcommand():
    """The list of commands is shown without loading any of them."""
    seen = probe("--help")
    assert not {f"movepages.cli.{name}" for name in SUBCOMMANDS} & set(seen["ours"])


@pytest.mark.host
@pytest.mark.parametrize("arguments", [["nodes"], ["nodes", "--json"], ["explain"]])
def test_text_in_a_pipe_loads_nothing_big(arguments):
    """Neither NumPy nor rich is needed for text without pages."""
    assert probe(*arguments)["loaded"] == []
