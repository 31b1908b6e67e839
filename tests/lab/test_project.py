from __future__ import annotations

import sys
from pathlib import Path

import pytest
from labkit.project import LAB, Project, find_project, outermost


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["/tmp/p", "/tmp/p/.venv", "/tmp/p/lab"], ["/tmp/p"]),
        (["/tmp/p", "/tmp/pp"], ["/tmp/p", "/tmp/pp"]),
        (["/srv/p", "/usr"], ["/srv/p"]),
        (["/b", "/a", "/a"], ["/a", "/b"]),
    ],
)
def test_only_outermost_directories_are_kept(paths, kept):
    """A directory below another comes with it; what belongs to the system is always there."""
    assert outermost([Path(p) for p in paths]) == tuple(Path(k) for k in kept)


def test_the_installation_behind_a_virtual_environment_is_kept(tmp_path):
    """A virtual environment's python is a link: what it leads to must be visible as well."""
    real = tmp_path / "pythons" / "3.11" / "bin" / "python3.11"
    real.parent.mkdir(parents=True)
    real.touch()
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(real)
    project = Project(tmp_path / "p", venv, Path("/usr/bin/python3"))
    assert set(project.keeps) == {tmp_path / "p", LAB, venv, real.parent.parent}


def test_a_command_sees_the_virtual_environment_first():
    """PATH begins with the virtual environment, and nothing of the caller's leaks in."""
    project = Project(Path("/p"), Path("/p/.venv"), Path("/py/bin/python3"))
    env = project.environment("tiny", "6.1")
    assert env["PATH"].split(":")[0] == "/p/.venv/bin"
    assert env["VIRTUAL_ENV"] == "/p/.venv"
    assert (env["MOVEPAGES_LAB"], env["MOVEPAGES_LAB_KERNEL"]) == ("tiny", "6.1")
    assert set(env) == {
        *("COLUMNS", "HOME", "LANG", "MOVEPAGES_LAB", "MOVEPAGES_LAB_KERNEL", "PATH"),
        *("PYTHONDONTWRITEBYTECODE", "TERM", "VIRTUAL_ENV"),
    }


def test_without_a_virtual_environment_the_launchers_python_is_first():
    """A project that has no virtual environment is run with the Python that runs the lab."""
    env = Project(Path("/p"), None, Path("/py/bin/python3")).environment("4node", "6.12")
    assert env["PATH"].startswith("/py/bin:/usr/local/sbin:")
    assert "VIRTUAL_ENV" not in env


def test_this_project_is_found(monkeypatch):
    """The project is the directory with lab/; the active virtual environment is preferred."""
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    project = find_project()
    assert project.root == Path(__file__).parents[2].resolve()
    assert project.venv == Path(sys.prefix)
    assert not project.python.is_symlink()
