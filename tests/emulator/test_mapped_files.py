"""The files that processes map, told apart though inode numbers are used again."""

from __future__ import annotations

import mmap
import os

import pytest

from movepages.emulator.mapped_files import MappedFiles, number_of
from movepages.emulator.objects import Objects
from movepages.linux.procmap import VmaSource
from movepages.linux.reading import ROOT

pytestmark = pytest.mark.emulator

PROC = ROOT / "proc"


@pytest.fixture
def files():
    """No file yet."""
    return MappedFiles(Objects(), PROC)


class Mapped:
    """A file that this process maps."""

    def __init__(self, descriptor):
        """Map a page of it."""
        os.ftruncate(descriptor, mmap.PAGESIZE)
        known = areas()
        self.memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)
        (self.vma,) = (vma for start, vma in areas().items() if known.get(start) != vma)

    @classmethod
    def at(cls, path):
        """Map the file at a path, which is made."""
        return cls(os.open(path, os.O_RDWR | os.O_CREAT))


def areas():
    """Return the areas of this process that map an inode, by start."""
    with VmaSource(os.getpid()) as source:
        return {vma.start: vma for vma in source.above(0) if vma.inode}


def of(files, mapped):
    """Return the object of a mapped file."""
    return files.of(os.getpid(), mapped.vma, movable=True)


def test_file_is_one_wherever_it_is_mapped(files, tmp_path):
    """Two mappings of a file show the same pages; another file has others."""
    one, again, other = (Mapped.at(tmp_path / name) for name in ("one", "one", "other"))
    assert of(files, one) is of(files, again)
    assert of(files, one) is not of(files, other)


@pytest.mark.parametrize("of_directory", ["disk", "memory"])
def test_number_that_is_used_again_is_another_file(files, tmp_path, memory_path, of_directory):
    """Once unlinked and unmapped, a file is not taken for a new one with its inode number."""
    path = (tmp_path if of_directory == "disk" else memory_path) / "file"
    first = Mapped.at(path)
    old = of(files, first)
    path.unlink()
    assert of(files, first) is old
    first.memory.close()
    assert of(files, Mapped.at(path)) is not old


def test_memory_without_a_path_is_told_apart(files):
    """Two memfds of one name are two."""
    one, other = (Mapped(os.memfd_create("same")) for _ in range(2))
    assert of(files, one) is not of(files, other)
    assert number_of(one.vma) != number_of(other.vma)


def test_page_cache_stays_as_long_as_a_path_leads_to_it(files, tmp_path):
    """A file that nobody maps is kept while it has its name; without both it is gone, once."""
    path = tmp_path / "file"
    mapped = Mapped.at(path)
    pages, number = of(files, mapped), number_of(mapped.vma)
    assert files.drop_gone(set()) == []
    path.unlink()
    assert files.drop_gone({number}) == []
    assert files.drop_gone(set()) == [pages]
    assert files.drop_gone(set()) == []


def test_path_to_another_file_does_not_keep_the_old(files, tmp_path):
    """A file that is made anew under the same name, and number, is not the one that was seen."""
    path = tmp_path / "file"
    mapped = Mapped.at(path)
    pages = of(files, mapped)
    mapped.memory.close()
    path.unlink()
    path.touch()
    assert files.drop_gone(set()) == [pages]


def test_replaced_file_is_dropped_though_its_number_is_mapped(files, tmp_path):
    """What a file has is given back once another has its number, whoever maps that one."""
    path = tmp_path / "file"
    first = Mapped.at(path)
    old = of(files, first)
    first.memory.close()
    path.unlink()
    second = Mapped.at(path)
    new = of(files, second)
    gone = files.drop_gone({number_of(second.vma)})
    assert (gone, new is old) == ([old], False)
