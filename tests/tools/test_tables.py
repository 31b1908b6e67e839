"""The tables in the documentation: how they are made, and how they get into their pages."""

from __future__ import annotations

import pytest
import tables

from movepages.kernel.syscalls.table import render_calls

PAGE = "# Calls\n\n<!-- table: calls -->\nold\n<!-- end of table -->\n\nThe end.\n"


@pytest.fixture
def docs(tmp_path):
    """A folder with one page that has a table, and one that has none."""
    (tmp_path / "calls.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("# Nothing\n")
    return tmp_path


def test_a_table_is_replaced_and_nothing_else():
    """What stands between the two lines is the table, with an empty line around it."""
    before, after = PAGE.split("old\n")
    assert tables.renewed(PAGE) == f"{before}\n{render_calls()}\n{after}"


def test_a_page_that_is_up_to_date_stays():
    """A second run changes nothing."""
    once = tables.renewed(PAGE)
    assert tables.renewed(once) == once


def test_an_unknown_table():
    """A name that nobody renders is refused, and those that there are are named."""
    with pytest.raises(ValueError, match=r"no table is called 'cals'; there are calls, semantics"):
        tables.renewed(PAGE.replace("table: calls", "table: cals"))


def test_check_names_what_is_stale(docs, capsys):
    """--check writes nothing; it names the page and the command, and fails."""
    assert tables.main(["--check"], docs) == 1
    assert capsys.readouterr().out == f"calls.md: stale; run {tables.COMMAND}\n"
    assert (docs / "calls.md").read_text() == PAGE


def test_without_check_it_writes(docs, capsys):
    """The page is written and named; then nothing is stale."""
    assert tables.main([], docs) == 0
    assert capsys.readouterr().out == "calls.md: written\n"
    assert tables.main(["--check"], docs) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_table_has_rows_of_one_width(name):
    """Each line has as many cells as the head, none of them empty."""
    lines = [line.strip("| ").split(" | ") for line in tables.render(name).splitlines()]
    assert len(lines) > 2
    assert {len(line) for line in lines} == {len(lines[0])}
    assert all(cell.strip() for line in lines for cell in line)


def test_bars_in_cells_are_escaped():
    """A bar would begin a new cell."""
    assert "| a\\|b |" in tables.table(["Head"], [["a|b"]])


def test_values_of_semantics():
    """Values read as people write them: errnos by name, sets by what they have or lack."""
    text = tables.render("semantics")
    (zero_page,) = [line for line in text.splitlines() if "zero_page_status" in line]
    (modes,) = [line for line in text.splitlines() if line.startswith("| `modes`")]
    assert zero_page.count("`-ENOENT`") == zero_page.count("`-EFAULT`") == 2
    assert modes.count("all but `LOCAL`, `PREFERRED_MANY`, `WEIGHTED_INTERLEAVE`") == 3
    assert modes.endswith("| all | choice / code |")


def test_outcomes_of_the_decision_table():
    """A return value alone, with statuses, unwritten ones, places, and long rows."""
    pages, lists = tables.render("decisions on pages"), tables.render("decisions on lists")
    failures = tables.render("decisions on failures")
    assert "| mlocked | `0 [-EPERM]` | `1 [-EPERM]` | `0 [1]` | `0 [1]` |" in pages
    assert "| n/a | n/a | n/a | `0 [1 -EBUSY 1*510]` |" in lists
    assert "| `2 [~ -EFAULT ~] at [0 0]` |" in failures
    assert "| `-ENOMEM at [1 1 0 0]` |" in failures


def test_cases_with_one_answer_share_a_line():
    """Cases of a row that differ in nothing are shown once, without their numbers."""
    pages = tables.render("decisions on pages")
    assert pages.count("kernel address, vsyscall: query") == 1
    assert "(1)" not in pages
