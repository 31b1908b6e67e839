"""/proc/self/mountinfo: which file system a file belongs to (proc_pid_mountinfo(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from movepages.errors import MalformedError
from movepages.linux.reading import ROOT, parse_number, read_text, unescape

if TYPE_CHECKING:
    from pathlib import Path

_ESCAPED = " \t\n\\#"


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as the caller sees it. `device` is `major:minor` in decimal.

    `root` is the directory of the file system that appears at `point`. `options` are of this mount,
    `super_options` of the file system.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    point: str
    options: tuple[str, ...]
    filesystem: str
    source: str
    super_options: tuple[str, ...]


def read_mounts(root: Path = ROOT) -> list[Mount]:
    """Return the caller's mounts in the kernel's order, later ones on top of earlier ones.

    Raises MalformedError.
    """
    path = root / "proc/self/mountinfo"
    lines = read_text(path).split("\n")
    return [_parse_mount(line, path, number) for number, line in enumerate(lines, 1) if line]


def filesystem_of(name: str, mounts: list[Mount]) -> Mount | None:
    """Return the mount that an absolute path without links or `..` in it lies on.

    None if nothing is mounted there: the caller's own root directory was changed (chroot).
    """
    path = PurePosixPath(name)
    found = None
    for mount in mounts:
        deeper = found is None or len(mount.point) >= len(found.point)
        if deeper and path.is_relative_to(mount.point):
            found = mount
    return found


def _parse_mount(line: str, path: Path, number: int) -> Mount:
    own, dash, super_block = line.partition(" - ")
    words, super_words = own.split(" "), super_block.split(" ")
    if not dash or len(words) < 6 or len(super_words) < 3:
        raise MalformedError(path, number, "line", f"{line!r} lacks fields")
    return Mount(
        mount_id=parse_number(words[0], path, number, "mount id"),
        parent_id=parse_number(words[1], path, number, "parent id"),
        device=words[2],
        root=unescape(words[3], _ESCAPED),
        point=unescape(words[4], _ESCAPED),
        options=tuple(words[5].split(",")),
        filesystem=super_words[0],
        source=unescape(super_words[1], _ESCAPED),
        super_options=tuple(super_words[2].split(",")),
    )
