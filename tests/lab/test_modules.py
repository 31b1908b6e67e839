from __future__ import annotations

import lzma

import pytest
from labkit import modules
from labkit.errors import UnavailableError


def module(*needed):
    """Return a module's bytes that say what it depends on, as modpost writes it."""
    return b"\x7fELF...\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0name=x\0"


@pytest.fixture
def available(tmp_path):
    """Return modules that need each other as the kernel's virtio modules do."""
    needs = {
        "virtio_ring": (),
        "virtio": ("virtio_ring",),
        "virtio_pci": ("virtio", "virtio_ring", "legacy-dev"),
        "legacy_dev": (),
        "virtiofs": ("fuse", "virtio", "virtio_ring"),
    }
    for name, needed in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(module(*needed))
    return {name: tmp_path / f"{name}.ko" for name in needs}


def test_a_module_comes_after_those_it_needs(available):
    """The order is one in which insmod succeeds, without repetition or what is built in."""
    order = modules.load_order(("virtio_pci", "virtiofs"), available, {"fuse"})
    assert order == ["virtio_ring", "virtio", "legacy_dev", "virtio_pci", "virtiofs"]


def test_a_missing_module_is_named(available):
    """A package that lacks a module cannot serve, and the module is named."""
    with pytest.raises(UnavailableError, match="no module fuse"):
        modules.load_order(("virtiofs",), available, set())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("fs/9p/9p.ko", "9p"),
        ("drivers/virtio/virtio_pci.ko.xz", "virtio_pci"),
        ("kernel/arch/x86/crypto/crc32-pclmul.ko", "crc32_pclmul"),
    ],
)
def test_names_are_the_kernels(path, name):
    """A module is called as the kernel calls it, whatever its file is called."""
    assert modules.name_of(path) == name


def test_compressed_modules_are_unpacked():
    """A static busybox may not unpack what it loads: the lab does."""
    assert modules.plain("a.ko.xz", lzma.compress(b"elf")) == b"elf"
    assert modules.plain("a.ko", b"elf") == b"elf"
    assert modules.dependencies(b"nothing here") == []
