"""An address space of the program, and what is kept with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from movepages.errors import no_such_process
from movepages.linux.procmap import VmaSource

if TYPE_CHECKING:
    from pathlib import Path

    from movepages.emulator.objects import PageObject
    from movepages.emulator.remaps import Remap


class Mm:
    """An address space, with the files through which the kernel tells of it."""

    def __init__(self, pid: int, image: tuple[int, ...], anonymous: PageObject, root: Path) -> None:
        """`pid` is a process that has it; `image` tells when that one has exec'ed."""
        self.pid, self.image = pid, image
        self.through = pid
        """A task that has it and was there when last looked at: a first thread may have ended."""
        self.own = {anonymous.pool_order: anonymous}
        """Pages that are no file's, by the order of their pool; 0 for those of no pool."""
        self.relatives: list[Mm] = [self]
        """Address spaces that came of one another by fork, and may share pages with this one."""
        self.remaps: list[Remap] = []
        """Calls of mremap(2) that were let through, and not been seen to end."""
        self._root = root
        self._pagemap = -1
        self._areas: VmaSource | None = None

    @property
    def anonymous(self) -> PageObject:
        """Its anonymous memory but for huge pages of the pools, and the policies of all areas."""
        return self.own[0]

    @property
    def has_pools(self) -> bool:
        """Whether any of its own pages is of a pool of huge pages."""
        return len(self.own) > 1

    @property
    def pagemap(self) -> int:
        """The descriptor of its pagemap. Raises NoSuchProcessError, ProcessLookupError."""
        if self._pagemap < 0:
            try:
                self._pagemap = os.open(self.directory / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise no_such_process(self.through, "emulate") from None
        return self._pagemap

    @property
    def directory(self) -> Path:
        """The directory in /proc of a task that has it."""
        return self._root / str(self.through)

    @property
    def areas(self) -> VmaSource:
        """Where to ask for its areas."""
        if self._areas is not None and not (self._areas.queries or self._areas.pid == self.through):
            self._areas.close()
            self._areas = None  # it reads the text of a thread that may have ended
        if self._areas is None:
            self._areas = VmaSource(self.through, self._root.parent)
        return self._areas

    def drop_remaps_of(self, tid: int) -> None:
        """Give up on calls of a task that have left no trace: they have failed."""
        self.remaps = [remap for remap in self.remaps if remap.tid != tid]

    def close(self) -> None:
        """Let go of its files."""
        if self._pagemap >= 0:
            os.close(self._pagemap)
        if self._areas is not None:
            self._areas.close()
        self._pagemap, self._areas = -1, None
        self.relatives.remove(self)
