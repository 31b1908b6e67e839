from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from labkit import qemu, rootfs
from labkit.kernels import KERNELS, Installed
from labkit.project import LAB, Project
from labkit.topologies import TOPOLOGIES

KNOWN_BARE_WORDS = {"quiet", "ro"}


def line(kernel="6.12", project="/p", topology="4node"):
    """Return a kernel command line, and the command that it is part of."""
    installed = Installed(KERNELS[kernel], Path("/k"), "6", ())
    where = Project(Path(project), None, Path("/py thon/bin/python3"))
    root = rootfs.virtiofs(9)
    wires = qemu.Wires(console=5, line=6, monitor=7, initramfs=8 if kernel == "6.1" else None)
    words = qemu.command("qemu", TOPOLOGIES[topology], installed, where, root, wires)
    return words[words.index("-append") + 1], words


@pytest.mark.parametrize("kernel", ["6.12", "6.1"])
def test_no_bare_word_reaches_init(kernel):
    """Words unknown to the kernel are key=value: bare ones would become init's arguments."""
    words = shlex.split(line(kernel)[0])
    before = words[: words.index("--")]
    assert {word for word in before if "=" not in word} <= KNOWN_BARE_WORDS


def test_init_is_an_isolated_python():
    """Init is the Python given, without site packages, running pid1; spaces stay in the word."""
    words = shlex.split(line()[0])
    assert "init=/py thon/bin/python3" in words
    assert words[words.index("--") + 1 :] == ["-I", "-S", str(LAB / "guest" / "pid1.py")]


def test_kept_directories_are_percent_encoded():
    """A colon or a space in a path does not end it."""
    words = shlex.split(line(project="/tmp/a:b")[0])
    keeps = next(word for word in words if word.startswith("labkeep=")).removeprefix("labkeep=")
    assert {"/py%20thon", "/tmp/a%3Ab"} <= set(keeps.split(":"))


def test_emulation_is_always_asked_for():
    """KVM is never tried: where its device opens, it may still hang."""
    words = line()[1]
    assert words[words.index("-accel") + 1].startswith("tcg")
    assert "kvm" not in " ".join(words)


def test_only_inherited_descriptors_are_named():
    """Console, lines and root are descriptors: nothing has a name that could be left behind."""
    words = line()[1]
    assert [w for w in words if "fd=" in w or "/fd/" in w] == [
        "file,id=console,path=/proc/self/fd/5",
        "socket,id=monitor,fd=7",
        "socket,id=lab,fd=6",
        "socket,id=vfs,fd=9",
    ]


def test_a_modular_kernel_gets_an_initramfs():
    """A kernel with its virtio drivers as modules boots through an initramfs, others do not."""
    modular = line("6.1")[1]
    assert modular[modular.index("-initrd") + 1] == "/proc/self/fd/8"
    assert "-initrd" not in line("6.12")[1]


def test_a_topology_adds_its_words():
    """What a machine needs of the kernel is on its command line."""
    assert "memhp_default_state=online_movable" in line(topology="hotplug")[0].split()
