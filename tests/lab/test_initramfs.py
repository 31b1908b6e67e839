from __future__ import annotations

import pytest
from labkit.initramfs import Entry, build, newc


def read_newc(archive):
    """Return (name, mode, data) of each member, read by the format's description."""
    members = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) // 4 * 4
        data = archive[at : at + size]
        at += (size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(archive)
            return members
        members.append((name, mode, data))


@pytest.mark.parametrize("size", range(6))
def test_members_come_back_whatever_their_padding(size):
    """Names and contents of every length modulo four are read back as they were written."""
    entries = [
        Entry("d", 0o040755),
        Entry("d/" + "n" * size + "x", 0o100644, b"\xff" * size),
        Entry("last", 0o100755, b"end"),
    ]
    assert read_newc(newc(entries)) == [(e.name, e.mode, e.data) for e in entries]


@pytest.fixture
def built(tmp_path):
    """Return an initramfs of a busybox and two modules."""
    for name in ("busybox", "zz.ko", "aa.ko"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    return build(tmp_path / "busybox", [tmp_path / "zz.ko", tmp_path / "aa.ko"])


def test_modules_are_loaded_in_the_order_given(built):
    """The shell sorts names, so that names begin with the place in the order."""
    modules = [name for name, _, _ in read_newc(built) if name.startswith("modules/")]
    assert modules == sorted(modules) == ["modules/00-zz.ko", "modules/01-aa.ko"]


def test_init_is_a_program_of_the_shell_that_is_there(built):
    """The kernel can execute /init: it is executable, and so is the shell that it names."""
    members = {name: (mode, data) for name, mode, data in read_newc(built)}
    mode, script = members["init"]
    assert mode == 0o100755
    assert script.startswith(b"#!/bin/busybox sh\n")
    assert members["bin/busybox"] == (0o100755, b"busybox" * 3)
