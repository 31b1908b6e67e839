"""The rules of conftest.py: where a test may run, and that the lab leaves nothing out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

SKIPPING = """
import pytest
def test_passes(): pass
def test_skips(): pytest.skip("no reason at all")
@pytest.mark.xfail(raises=ValueError)
def test_expected_to_fail(): raise ValueError
"""

SKIPPING_WHOLE = "import pytest; pytest.skip('none of it', allow_module_level=True)"

WANTING_NODES = """
import pytest
@pytest.mark.needs_nodes(1)
def test_one(): pass
@pytest.mark.needs_nodes(1000)
def test_thousand(): pass
"""


@pytest.fixture
def outcome(tmp_path):
    """Return a function that runs a test file under our conftest; it gives what pytest printed."""

    def run(code, *arguments, lab=""):
        (tmp_path / "test_it.py").write_text(code)
        shutil.copy(HERE / "conftest.py", tmp_path)
        configuration = ("-c", HERE.parent / "pyproject.toml", "--rootdir", tmp_path)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"),
                *("-p", "pytest_timeout"),
                *(*configuration, *arguments, tmp_path),
            ],
            env=os.environ | {"MOVEPAGES_LAB": lab, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    return run


def test_skip_on_the_host_is_a_skip(outcome):
    """Outside the lab a skip stays what it is."""
    assert "1 passed, 1 skipped, 1 xfailed" in outcome(SKIPPING)


def test_skip_in_the_lab_is_a_failure(outcome):
    """In the lab a skipped test fails with its reason; one expected to fail does not."""
    printed = outcome(SKIPPING, lab="4node")
    assert "1 failed, 1 passed, 1 xfailed" in printed
    assert "no reason at all" in printed


def test_skipped_file_in_the_lab_is_a_failure(outcome):
    """In the lab a file that skips itself as a whole fails."""
    assert "1 error" in outcome(SKIPPING_WHOLE, lab="4node")


def test_nodes_that_are_not_there(outcome):
    """A test that needs more nodes than there are is skipped, and the reason names both numbers."""
    printed = outcome(WANTING_NODES)
    assert "1 passed, 1 skipped" in printed
    assert "needs 1000 nodes with memory, and here " in printed


def test_nodes_missing_in_the_lab_are_a_failure(outcome):
    """In the lab, nodes that a test needs are there, or it fails."""
    assert "1 passed, 1 error" in outcome(WANTING_NODES, lab="4node")


@pytest.mark.parametrize("marker", ["hotplug", "hmat", "tiny"])
def test_marker_of_a_topology_implies_lab(outcome, marker):
    """A test for a topology of its own never runs among the unit tests."""
    code = f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass\n"
    assert "1 deselected" in outcome(code, "-m", "not lab")


def test_unknown_marker_is_refused(outcome):
    """A misspelt marker does not quietly send a test to the wrong tier."""
    code = "import pytest\n@pytest.mark.hots\ndef test_it(): pass\n"
    assert "'hots' not found in `markers`" in outcome(code)
