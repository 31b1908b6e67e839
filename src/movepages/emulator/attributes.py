"""Attributes of the generated tree that have a value here, not in their file; root may set some.

The tree is of plain files: one takes what is written to it, and does nothing. So opens of such an
attribute are looked at. A program that opens it to read gets a descriptor of what the value is at
that moment. Before one opens it to write the file is emptied, and what is found in it later was
written since: that counts before anything is done that goes by it. A write cannot fail, so what the
kernel would refuse is passed over. To be read and written by one descriptor it cannot be.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Store = Callable[[str], None]

_OWNER_WRITES = 0o200


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value: how to tell it, and how to set it from a line, where root may do so."""

    show: Callable[[], int]
    store: Store | None = None


@dataclass(slots=True, eq=False)
class _Written:
    """A file that somebody has opened to write."""

    path: Path
    store: Store
    seen: str = ""
    """What was in it when it was last looked at."""


@dataclass(slots=True, eq=False)
class Attributes:
    """The attributes by path, such as `/sys/devices/system/node/node0/...`."""

    by_path: Mapping[str, Attribute]
    before_store: Callable[[], None]
    """Called before anybody can write."""
    _written: dict[str, _Written] = field(default_factory=dict)

    def text(self, name: str) -> bytes | None:
        """Return what a program reads, None if there is no such attribute."""
        if name not in self.by_path:
            return None
        self.take_written()
        return b"%d\n" % self.by_path[name].show()

    def open_to_write(self, name: str, file: Path) -> None:
        """Make ready for a program to open an attribute to write; `file` is the tree's."""
        store = self.by_path[name].store if name in self.by_path else None
        if store is None:
            return
        self.take_written()
        self.before_store()
        _empty(file)
        self._written[name] = _Written(file, store)

    def take_written(self) -> None:
        """Set what programs have written since this was last called."""
        for each in self._written.values():
            text = each.path.read_text(encoding="ascii", errors="replace")
            new = text.removeprefix(each.seen)
            each.seen = text
            if not new:
                continue
            for line in new.replace("\0", "").split() or [""]:
                each.store(line)


def _empty(file: Path) -> None:
    """Empty a file of ours, which for others may be one that cannot be written."""
    mode = file.stat().st_mode
    file.chmod(mode | _OWNER_WRITES)
    try:
        os.truncate(file, 0)
    finally:
        file.chmod(mode)
