"""Four workers move memory that is written to meanwhile, on four nodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator


def test_no_page_is_lost(emulate):
    """Twice 1,000 pages come to their nodes by calls that overlap, with all their bytes."""
    done = emulate(sys.executable, Path(__file__).parent / "parallel.py")
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "moved": [1000, 1000],
        "stayed": 0,
        "true": True,
        "intact": True,
    }
