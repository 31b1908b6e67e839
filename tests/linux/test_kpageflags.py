from __future__ import annotations

import struct

import numpy as np
import pytest

from movepages.abi.pagemap import PageFlag
from movepages.linux import kpageflags, pagemap


@pytest.fixture
def tree(tmp_path):
    """A root directory whose kpageflags has three frames: ANON|LRU, ZERO_PAGE, none."""
    (tmp_path / "proc").mkdir()
    flags = (1 << PageFlag.ANON | 1 << PageFlag.LRU, 1 << PageFlag.ZERO_PAGE, 0)
    (tmp_path / "proc/kpageflags").write_bytes(struct.pack("=3Q", *flags))
    return tmp_path


def test_flags_are_those_of_the_frames_asked_for(tree):
    """Frames may be asked for in any order, and twice."""
    flags = kpageflags.read_flags(np.array([1, 0, 1], dtype=np.uint64), tree)
    assert kpageflags.has(flags, PageFlag.ZERO_PAGE).tolist() == [True, False, True]
    assert kpageflags.has(flags, PageFlag.ANON).tolist() == [False, True, False]


@pytest.mark.parametrize("frame", [3, 4, 2**40])
def test_a_frame_behind_the_last_is_no_page(tree, frame):
    """Beyond the machine's memory there is nothing: the flag NOPAGE says so."""
    flags = kpageflags.read_flags(np.array([frame, 2], dtype=np.uint64), tree)
    assert kpageflags.has(flags, PageFlag.NOPAGE).tolist() == [True, False]


def test_no_frames_have_no_flags(tree):
    """Asked for nothing, it answers nothing."""
    assert len(kpageflags.read_flags(np.empty(0, dtype=np.uint64), tree)) == 0


def test_a_machine_without_the_file_is_an_error(tmp_path):
    """Absence is not passed off as frames without flags."""
    with pytest.raises(FileNotFoundError):
        kpageflags.read_flags(np.array([0], dtype=np.uint64), tmp_path)
    with pytest.raises(FileNotFoundError):
        kpageflags.read_run(0, 1, tmp_path)


@pytest.mark.parametrize(("first", "count", "found"), [(0, 3, 3), (1, 2, 2), (1, 3, 2), (3, 1, 0)])
def test_a_run_of_frames_ends_with_the_memory(tree, first, count, found):
    """Frames side by side are read at once, as many as there are."""
    alone = kpageflags.read_flags(np.arange(first, first + found, dtype=np.uint64), tree)
    assert kpageflags.read_run(first, count, tree).tolist() == alone.tolist()


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_real_frames_are_what_they_are(memory):
    """A touched page is anonymous, an only read one is the zero page."""
    pages = memory.private(2)
    pages[:1].touch()
    assert not pages[1:].data.any()
    with pagemap.open_pagemap(0) as descriptor:
        entries = pagemap.read_entries(descriptor, pages.start // 4096, np.empty(2, np.uint64))
    flags = kpageflags.read_flags(pagemap.frames(entries))
    assert kpageflags.has(flags, PageFlag.ANON).tolist() == [True, False]
    assert kpageflags.has(flags, PageFlag.ZERO_PAGE).tolist() == [False, True]


@pytest.mark.host
@pytest.mark.usefixtures("root")
def test_frames_are_not_for_everybody(unprivileged):
    """Only root may read the flags: the kernel's own refusal is passed on."""

    def read():
        try:
            kpageflags.read_flags(np.array([0], dtype=np.uint64))
        except PermissionError as error:
            return error.errno

    assert unprivileged(read) == 13
