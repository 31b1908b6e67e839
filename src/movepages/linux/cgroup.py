"""cpusets: on which nodes a process may have memory (cgroup v2 and v1; kernel/cgroup/cpuset.c).

The way there: /proc/PID/cgroup names the group in each hierarchy, /proc/self/mountinfo says where
the hierarchy is mounted. A cpuset without nodes of its own has those of the group above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from movepages.errors import MalformedError
from movepages.linux.files import Mount, read_mounts
from movepages.linux.reading import (
    ROOT,
    parse_list,
    process_directory,
    read_optional,
    read_optional_number,
    read_process_record,
)
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cpuset:
    """The cpuset of a process. `path` is its directory; `version` that of the cgroup hierarchy.

    `mems` is what was configured, empty where nothing was; `effective_mems` what holds.
    `memory_migrate` tells whether the kernel moves pages when `mems` is changed.
    """

    path: Path
    version: int
    mems: NodeSet
    effective_mems: NodeSet
    memory_migrate: bool


def read_cpuset(pid: int, root: Path = ROOT) -> Cpuset | None:
    """Return the cpuset of a process, or None where no cpuset controller is to be seen.

    That is: none in the kernel, none enabled or mounted, or the group lies outside the caller's
    cgroup namespace; `Status.mems_allowed` holds all the same. Raises NoSuchProcessError,
    NotPermittedError, MalformedError.
    """
    groups = _read_groups(pid, root)
    mounts = read_mounts(root)
    if "cpuset" in groups:
        mount = next((m for m in mounts if _is_v1_cpuset(m)), None)
        return _read_v1(_directory(mount, groups["cpuset"], root))
    mount = next((m for m in mounts if m.filesystem == "cgroup2"), None)
    directory = _directory(mount, groups[""], root) if "" in groups else None
    return _read_v2(directory, root / mount.point.lstrip("/")) if mount and directory else None


def _read_groups(pid: int, root: Path) -> dict[str, str]:
    """Return the path of the process's group by controller; that of v2 under the empty name."""
    path = process_directory(pid, root) / "cgroup"
    groups: dict[str, str] = {}
    for number, line in enumerate(read_process_record(pid, "cgroup", root).splitlines(), 1):
        words = line.split(":", 2)  # hierarchy id, controllers, path
        if len(words) < 3:
            raise MalformedError(path, number, "line", f"{line!r} has less than three fields")
        groups.update(dict.fromkeys(words[1].split(","), words[2]))
    return groups


def _is_v1_cpuset(mount: Mount) -> bool:
    return mount.filesystem == "cgroup" and "cpuset" in mount.super_options


def _directory(mount: Mount | None, group: str, root: Path) -> Path | None:
    """Return the directory of a group, or None where it is not below what is mounted."""
    path = PurePosixPath(group)
    if mount is None or ".." in path.parts or not path.is_relative_to(mount.root):
        return None
    return root / mount.point.lstrip("/") / path.relative_to(mount.root)


def _read_v1(directory: Path | None) -> Cpuset | None:
    if directory is None or not (directory / "cpuset.mems").exists():
        return None
    mems = _read_nodes(directory / "cpuset.mems")
    effective = directory / "cpuset.effective_mems"  # since Linux 3.17; before, mems is it
    return Cpuset(
        path=directory,
        version=1,
        mems=mems,
        effective_mems=_read_nodes(effective) if effective.exists() else mems,
        memory_migrate=read_optional_number(directory / "cpuset.memory_migrate") == 1,
    )


def _read_v2(directory: Path, top: Path) -> Cpuset | None:
    """Return the cpuset of a group, or of the nearest above it that has the controller."""
    while not (directory / "cpuset.mems.effective").exists():
        if directory == top:
            return None
        directory = directory.parent
    return Cpuset(
        path=directory,
        version=2,
        mems=_read_nodes(directory / "cpuset.mems"),  # the topmost group has no such file
        effective_mems=_read_nodes(directory / "cpuset.mems.effective"),
        memory_migrate=True,
    )


def _read_nodes(path: Path) -> NodeSet:
    return NodeSet(parse_list(read_optional(path) or "", path))
