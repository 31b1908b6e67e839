from __future__ import annotations

import inspect

import pytest

from movepages import errors
from movepages.cli.exit_codes import ExitCode, exit_code_of

EXPECTED = {
    errors.NodeSetError: 2,
    errors.SizeError: 2,
    errors.ArgumentError: 2,
    errors.TopologyError: 2,
    errors.NoSuchNodeError: 2,
    errors.NoSuchProcessError: 3,
    errors.NotPermittedError: 4,
    errors.FilteredError: 4,
    errors.OutsideCpusetError: 4,
    errors.MalformedError: 5,
    errors.UnsupportedError: 5,
    errors.InvalidCallError: 5,
    errors.BadAddressError: 5,
    errors.NoSuchCallError: 5,
    errors.MisplacedError: 5,
    errors.CallError: 5,
    errors.MovePagesError: 5,
    errors.NodeFullError: 1,
}
"""The exit code of each error, from the table of the specification: 0 done, 1 pages not moved, 2
usage, 3 no such process, 4 not permitted, 5 this machine cannot."""


@pytest.mark.parametrize(("kind", "code"), EXPECTED.items(), ids=str)
def test_every_error_has_its_exit_code(kind, code):
    """An error leads to the exit code that it stands for, whatever it was made with."""
    assert exit_code_of(kind.__new__(kind)) == code


def test_no_error_is_left_out():
    """Every error of movepages.errors is in the table above."""
    kinds = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.MovePagesError)
    }
    assert kinds == set(EXPECTED)


def test_codes_do_not_collide_with_those_of_the_shell():
    """126 and 127 mean to the shell that it could not run the command."""
    assert not {126, 127} & set(ExitCode)
