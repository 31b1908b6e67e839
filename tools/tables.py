"""Write the tables in the documentation that the code and the tests already know.

    tools/tables.py            bring the tables up to date
    tools/tables.py --check    name the pages whose tables are not, with exit code 1

A table stands in a page of docs/ between two lines, and what is between them is replaced:

    <!-- table: calls -->
    <!-- end of table -->

The decision table and the conformance suite are data of the tests; the rest is the package's.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import fields
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movepages.abi import UNWRITTEN, Errno
from movepages.kernel import inject
from movepages.kernel.semantics import ALL_SEMANTICS, Semantics
from movepages.kernel.syscalls.table import render_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COMMAND = ".venv/bin/python tools/tables.py"
NAMES = ("DOCUMENTED_2006", "PATCH_2006", "LINUX_2_6_18", "LINUX_6_12")
"""What the package calls the four kernels of ALL_SEMANTICS."""
FAULTS = (
    "Pin",
    "Busy",
    "LruBusy",
    "InBatch",
    "NoMemory",
    "BeforePass",
    "BeforeCall",
    "AfterDrain",
    "StaleMarker",
)
"""What `machine.inject` takes, in the order of the table."""

_CASE = re.compile(r" \(\d\)")
"""The number of a case in the text of a row that has several."""
_TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> int:
    """Rewrite or check the pages of a folder; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say which pages are stale")
    options = parser.parse_args(arguments)
    stale = stale_pages(docs)
    for page in stale:
        print(f"{page.name}: " + (f"stale; run {COMMAND}" if options.check else "written"))
        if not options.check:
            page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if options.check and stale else 0


def stale_pages(docs: Path = DOCS) -> list[Path]:
    """Return the pages of a folder of which a table is not what the code says now."""
    texts = {page: page.read_text(encoding="utf-8") for page in sorted(docs.glob("*.md"))}
    return [page for page, text in texts.items() if renewed(text) != text]


def renewed(text: str) -> str:
    """Return a page with all of its tables made anew. Raises ValueError for an unknown table."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{render(found[2])}\n{found[3]}", text)


def render(name: str) -> str:
    """Return the table of a name as Markdown. Raises ValueError for an unknown one."""
    if name not in TABLES:
        raise ValueError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]()


# -- the tables -------------------------------------------------------------------------------


def render_semantics() -> str:
    """Render the fields of Semantics: what each decides, its values, and where they come from."""
    rows = []
    for field in fields(Semantics):
        if field.name == "name":
            continue
        origin = field.metadata["origin"]
        values = [getattr(semantics, field.name) for semantics in ALL_SEMANTICS]
        rows.append(
            [
                f"`{field.name}`",
                field.metadata["doc"],
                *(_value(value, values) for value in values),
                f"{origin['documented']} / {origin['code']}",
            ]
        )
    return table(["Field", "What it decides", *(f"`{name}`" for name in NAMES), "Origin"], rows)


def render_functions() -> str:
    """Render the functions among the values of Semantics, with what each does."""
    values = (
        getattr(semantics, field.name) for field in fields(Semantics) for semantics in ALL_SEMANTICS
    )
    functions = {value.__name__: value for value in values if callable(value)}
    return table(
        ["Function", "What it does"],
        ([f"`{name}`", first_line(function)] for name, function in functions.items()),
    )


def render_decisions(part: str) -> str:
    """Render a part of the decision table: what each kernel answers, case by case."""
    rows = tests_module("kernel", f"decision.{part}").ROWS
    lines = ((_CASE.sub("", row.text), *(_outcome(row.expected(n)) for n in NAMES)) for row in rows)
    distinct = map(list, dict.fromkeys(lines))  # cases with one answer in one line
    return table(["Case", *(f"`{name}`" for name in NAMES)], distinct)


def render_faults() -> str:
    """Render the faults that `machine.inject` takes."""
    classes = [getattr(inject, name) for name in FAULTS]
    rows = ([f"`{fault.__name__}`", first_line(fault)] for fault in classes)
    return table(["Fault", "What goes wrong"], rows)


def render_scenarios() -> str:
    """Render the files of scenarios, with what each is about."""
    tests_module("conformance", "suite.scenarios")
    scenarios = tests_module("conformance", "suite.registry").SCENARIOS.values()
    names = sorted({scenario.body.__module__ for scenario in scenarios})
    return table(
        ["File", "What it asks"],
        ([f"`{name.rpartition('.')[2]}.py`", first_line(sys.modules[name])] for name in names),
    )


def render_not_expressible() -> str:
    """Render the cases that no scenario covers, with the reasons."""
    reasons = tests_module("conformance", "suite.rows").NOT_EXPRESSIBLE
    return table(["Case", "Why no scenario covers it"], map(list, reasons.items()))


TABLES: dict[str, Callable[[], str]] = {
    "calls": render_calls,
    "semantics": render_semantics,
    "functions of semantics": render_functions,
    "faults": render_faults,
    "scenarios": render_scenarios,
    "not expressible": render_not_expressible,
} | {
    f"decisions on {part}": partial(render_decisions, part)
    for part in ("arguments", "pages", "lists", "failures")
}
"""Every table by its name, and who renders it as Markdown."""


# -- their cells ------------------------------------------------------------------------------


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def first_line(documented: object) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (documented.__doc__ or "").partition("\n")[0].rstrip(".")


def tests_module(folder: str, name: str) -> ModuleType:
    """Import what tests in a folder share."""
    path = str(ROOT / "tests" / folder)
    if path not in sys.path:
        sys.path.insert(0, path)
    return import_module(name)


def _value(value: Any, of_all: Sequence[Any]) -> str:
    """Write a value of a field; a set as what it has or, if that is shorter, what it lacks."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"`{_said(value)}`"
    if callable(value):
        return f"`{value.__name__}`"
    lacks = sorted(_name(item) for item in frozenset().union(*of_all) - value)
    if not lacks:
        return "all"
    if len(lacks) < len(value):
        return f"all but {', '.join(lacks)}"
    return ", ".join(sorted(_name(item) for item in value))


def _name(item: Any) -> str:
    return f"`{getattr(item, 'name', item)}`"


def _outcome(outcome: Any) -> str:
    """Write an outcome: `ret [statuses] at [nodes]`; `n/a` where a kernel has no such thing."""
    if outcome is None:
        return "n/a"
    text = _said(outcome.ret)
    if any(code != UNWRITTEN for code in outcome.status):
        text += f" [{_listed(outcome.status)}]"
    if outcome.nodes:
        text += f" at [{_listed(outcome.nodes)}]"
    return f"`{text}`"


def _listed(codes: Iterable[int]) -> str:
    """Write statuses or nodes in their order; `1*510` stands for a long row of 1."""
    runs = ((_said(code), len(list(run))) for code, run in groupby(codes))
    return " ".join(f"{text}*{n}" if n > 4 else " ".join([text] * n) for text, n in runs)


def _said(code: int) -> str:
    """Write a number: an errno by name, `~` for a status that was never written."""
    if code == UNWRITTEN:
        return "~"
    return str(code) if code >= 0 else f"-{Errno(-code).name}"


if __name__ == "__main__":
    sys.exit(main())
