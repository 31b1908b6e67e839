"""The initramfs of kernels that have virtio as modules: load them, mount the root, go there.

It is made anew for each boot, in memory: ten milliseconds, and it can never be stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY = 0o040755
_PROGRAM = 0o100755
_DATA = 0o100644

# `$labpython` is what init= would be; the kernel hands us only the words after `--`.
_SCRIPT = """\
#!/bin/busybox sh
for module in /modules/*; do
    /bin/busybox insmod "$module" || echo "lab: $module was not loaded"
done
/bin/busybox mount -t "$labroot" -o "$labrootopts" rootfs /root || exit 1
exec /bin/busybox switch_root /root "$labpython" "$@"
"""


@dataclass(frozen=True)
class Entry:
    """A directory or a file of the archive."""

    name: str
    mode: int
    data: bytes = b""


def newc(entries: list[Entry]) -> bytes:
    """Return a cpio archive in the "newc" format, the one that the kernel unpacks."""
    members = [_member(number, entry) for number, entry in enumerate(entries, 1)]
    return b"".join([*members, _member(0, Entry("TRAILER!!!", 0))])


def _member(inode: int, entry: Entry) -> bytes:
    """Return one member: 13 hexadecimal fields, the name, the data, each padded to 4 bytes."""
    name = entry.name.encode() + b"\0"
    links = 2 if entry.mode == _DIRECTORY else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    """Return the bytes with zeros up to a multiple of four."""
    return data + bytes(-len(data) % 4)


def build(busybox: Path, modules: list[Path]) -> bytes:
    """Return the initramfs; modules are loaded in the order given."""
    directories = [Entry(name, _DIRECTORY) for name in ("bin", "dev", "modules", "root")]
    loaded = [
        Entry(f"modules/{number:02}-{path.name}", _DATA, path.read_bytes())
        for number, path in enumerate(modules)
    ]
    return newc(
        [
            *directories,
            Entry("bin/busybox", _PROGRAM, busybox.read_bytes()),
            Entry("init", _PROGRAM, _SCRIPT.encode()),
            *loaded,
        ]
    )
