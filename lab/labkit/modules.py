"""Which modules to load, and in which order, from what the modules say of themselves.

There is no depmod here: it belongs to a package that a container has no other use for.
"""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

from labkit.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".ko", ".ko.xz")


def name_of(path: str) -> str:
    """Return a module's name from its file's: 9pnet_virtio from net/9p/9pnet_virtio.ko.xz."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def plain(path: str, data: bytes) -> bytes:
    """Return a module's contents, uncompressed."""
    return lzma.decompress(data) if path.endswith(".xz") else data


def dependencies(data: bytes) -> list[str]:
    """Return the modules that this one needs, as its .modinfo section lists them."""
    _, found, rest = data.partition(b"\0depends=")
    if not found:
        return []
    text = rest.split(b"\0", 1)[0].decode()
    return [name.replace("-", "_") for name in text.split(",") if name]


def load_order(wanted: tuple[str, ...], available: dict[str, Path], builtin: set[str]) -> list[str]:
    """Return the modules wanted and all they need, each after those that it needs."""
    order: list[str] = []
    for name in wanted:
        _visit(name, available, builtin, order)
    return order


def _visit(name: str, available: dict[str, Path], builtin: set[str], order: list[str]) -> None:
    """Append a module after its dependencies."""
    if name in order or name in builtin:
        return
    if name not in available:
        raise UnavailableError(f"the kernel's package has no module {name}")
    for needed in dependencies(available[name].read_bytes()):
        _visit(needed, available, builtin, order)
    order.append(name)
