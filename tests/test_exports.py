from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import movepages
from movepages import api

PUBLIC = sorted(set(movepages.__all__) - {"__version__"})
HANDED_ON = ("movepages.held_memory", "movepages.thread_policy")
"""Modules beside api.py whose public functions it offers as its own."""


def run(code: str) -> str:
    """Run code in an interpreter of its own and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_offers_what_the_api_defines():
    """The public names of the package are those that api.py defines or offers, and the version."""
    defined = {
        name
        for name, value in vars(api).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") in {api.__name__, *HANDED_ON}
    }
    assert set(PUBLIC) == set(api.__all__) == defined | {"MOVE", "MOVE_ALL"}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_the_one_of_the_api(name):
    """The package hands on the very object of api.py."""
    assert getattr(movepages, name) is getattr(api, name)


def test_all_is_sorted_and_has_no_name_twice():
    """The list is in the order that isort keeps, so that a merge shows what it adds."""
    assert list(movepages.__all__) == sorted(set(movepages.__all__))


def test_dir_lists_names_that_are_not_loaded_yet():
    """Completion in a shell finds the public names at once."""
    assert run("import movepages; print(*dir(movepages))").split() == list(movepages.__all__)


def test_type_checkers_see_every_name():
    """What is loaded lazily is also imported for type checkers, name for name."""
    tree = ast.parse(Path(movepages.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "movepages.api"
        for alias in node.names
    }
    assert imported == set(PUBLIC)


@pytest.mark.parametrize("heavy", ["numpy", "rich", "click", "msgspec", "movepages.api"])
def test_importing_the_package_loads_nothing_heavy(heavy):
    """`import movepages` costs next to nothing: all else waits until it is used."""
    assert run(f"import sys, movepages; print({heavy!r} in sys.modules)") == "False"


def test_a_name_is_loaded_once():
    """After its first use a name is an ordinary attribute, which costs nothing."""
    code = "import movepages; movepages.MOVE; print('MOVE' in vars(movepages))"
    assert run(code) == "True"


@pytest.mark.parametrize("name", ["move_page", "np", "LinuxMachine", "_addresses"])
def test_other_names_are_attribute_errors(name):
    """A name that is not public is refused by name, even if api.py has it."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(movepages, name)


def test_star_import_brings_all_public_names():
    """`from movepages import *` binds what __all__ lists."""
    code = "from movepages import *; print(callable(move_pages), __version__, MOVE_ALL)"
    assert run(code) == f"True {movepages.__version__} 4"


def test_the_version_is_that_of_the_installed_package():
    """There is one place for the version, and the build reads it there."""
    assert version("movepages") == movepages.__version__


@pytest.mark.parametrize("name", [n for n in PUBLIC if callable(getattr(movepages, n))])
def test_every_public_function_is_documented(name):
    """Each function and class, and each public method, says what it does."""
    value = getattr(movepages, name)
    documented = [value]
    if inspect.isclass(value):
        documented += [m for n, m in vars(value).items() if callable(m) and not n.startswith("_")]
    assert all(inspect.getdoc(thing) for thing in documented)


def test_no_public_function_shares_its_name_with_a_module():
    """`movepages.read_topology` and `movepages.topology` cannot be taken for each other."""
    modules = {path.stem for path in Path(movepages.__file__).parent.iterdir()}
    assert modules.isdisjoint(PUBLIC)


def test_the_package_is_typed():
    """py.typed tells type checkers to read the annotations (PEP 561)."""
    assert (Path(movepages.__file__).parent / "py.typed").exists()
