from __future__ import annotations

import inspect

import pytest

from movepages.linux.machine import LinuxMachine
from movepages.machine import Machine

MEMBERS = [name for name in vars(Machine) if not name.startswith("_")]
METHODS = [name for name in MEMBERS if callable(vars(Machine)[name])]


def test_the_protocol_asks_what_the_design_lists():
    """The protocol has the members that the tools are written against, and no others."""
    assert sorted(MEMBERS) == [
        "conditions",
        "free_bytes",
        "get_policy",
        "hold",
        "locate",
        "mappings",
        "mbind",
        "migrate_pages",
        "move_pages",
        "page_size_bytes",
        "present",
        "query_pages",
        "set_policy",
        "settings",
        "standing",
        "task",
        "tasks",
        "threads",
        "topology",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_does(name):
    """Whoever implements a machine reads here what is expected."""
    assert inspect.getdoc(vars(Machine)[name])


@pytest.mark.parametrize("name", METHODS)
def test_linux_machine_has_the_signatures_of_the_protocol(name):
    """Names, order, kinds, defaults and types of all arguments agree; mypy checks it as well."""
    promised = inspect.signature(vars(Machine)[name])
    assert inspect.signature(vars(LinuxMachine)[name]) == promised


def test_linux_machine_knows_its_page_size():
    """The page size is a plain number, as the protocol's property is."""
    size = LinuxMachine().page_size_bytes
    assert type(size) is int
    assert size >= 4096
    assert size & (size - 1) == 0
