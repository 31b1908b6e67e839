"""Measure movepages, and say which of its bars are met: `make bench`.

    benchmarks/run.py [--json] [--only NAME]

--only runs the benchmarks whose name contains NAME. The exit code tells whether everything
ran, not whether all bars are met: other work on the machine shows in the numbers.
What cannot run here is left out, with the reason.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import calls
import emulated
import locating
import model
import placement
import results
import show
from harness import Benchmark, LeftOut, LeftOutError, Row

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; print the results."""
    benchmarks = [
        *calls.benchmarks(),
        *locating.benchmarks(),
        *placement.benchmarks(),
        *show.benchmarks(),
        *model.benchmarks(),
        *emulated.benchmarks(),
    ]
    options = _parser(benchmarks).parse_args(arguments)
    chosen = [each for each in benchmarks if options.only in each.name]
    if not chosen:
        names = ", ".join(each.name for each in benchmarks)
        print(f"no benchmark is called {options.only!r}; there are {names}", file=sys.stderr)
        return 2
    rows, left_out = measure(chosen)
    if options.json:
        print(results.as_json(rows, left_out))
    else:
        print(f"{results.table(rows)}\n\n{results.summary(rows, left_out)}")
    return 0


def measure(chosen: Sequence[Benchmark]) -> tuple[list[Row], list[LeftOut]]:
    """Run benchmarks one after the other, saying on standard error which."""
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for benchmark in chosen:
        print(f"measuring {benchmark.name} ...", file=sys.stderr, flush=True)
        try:
            for result in benchmark.rows():
                if isinstance(result, Row):
                    rows.append(result)
                else:
                    left_out.append(result)
        except LeftOutError as error:
            left_out.append(LeftOut(benchmark.name, str(error)))
    return rows, left_out


def _parser(benchmarks: Sequence[Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure movepages, and say which bars are met.")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    names = ", ".join(each.name for each in benchmarks)
    parser.add_argument("--only", default="", metavar="NAME", help=f"one or some of: {names}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
