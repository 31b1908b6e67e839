"""The maker of the virtual environment: which groups it installs, and how it fails."""

from __future__ import annotations

import pytest
from environment import SetupError, main, requirements, with_included

GROUPS = {
    "test": ["pytest", "coverage"],
    "lint": ["ruff", {"include-group": "test"}, "pytest"],
    "docs": ["sphinx"],
}


def test_included_groups_come_first_and_once():
    """A group that includes another makes both complete."""
    assert with_included(["lint", "test"], GROUPS) == ["test", "lint"]


def test_requirements_are_named_once():
    """A requirement of two groups is handed to pip once."""
    assert requirements(["test", "lint"], GROUPS) == ["pytest", "coverage", "ruff"]


def test_no_group_has_no_requirements():
    """The core alone needs no group."""
    assert requirements(with_included([], GROUPS), GROUPS) == []


def test_unknown_group_is_named():
    """A group that pyproject.toml lacks is named, together with those it has."""
    with pytest.raises(SetupError, match="no group 'tests'; there are: test, lint, docs"):
        with_included(["tests"], GROUPS)


def test_failure_is_one_line(capsys):
    """What goes wrong is said in one line, without a traceback."""
    assert main(["nonsense"]) == 1
    assert capsys.readouterr().err.startswith("setup: no group 'nonsense'")
