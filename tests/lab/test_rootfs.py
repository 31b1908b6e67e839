from __future__ import annotations

import tempfile

import pytest
from labkit import rootfs
from labkit.kernels import KERNELS


def test_the_first_connection_needs_no_file(tmp_path, monkeypatch):
    """Daemon and QEMU get connected sockets, and the directory they met in is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    listener, client = rootfs.connected_pair()
    with listener, client:
        server, _ = listener.accept()
        with server:
            client.send(b"x")
            assert server.recv(1) == b"x"
    assert list(tmp_path.iterdir()) == []


def test_both_daemons_get_the_socket_and_the_whole_root():
    """QEMU's own daemon and its successor differ in how they are told the same."""
    old = rootfs.daemon_command("/usr/lib/qemu/virtiofsd", 5)
    new = rootfs.daemon_command("/usr/libexec/virtiofsd", 5)
    assert "--fd=5" in old
    assert "--fd=5" in new
    assert "source=/" in old
    assert "--shared-dir=/" in new


@pytest.mark.parametrize(
    ("uid", "daemon", "way"), [(0, "/d", "virtiofs"), (0, None, "9p"), (1000, "/d", "9p")]
)
def test_the_way_to_the_root_follows_from_what_is_here(monkeypatch, uid, daemon, way):
    """The daemon needs root; without it, QEMU serves the files itself."""
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr(rootfs, "find_daemon", lambda: daemon)
    assert rootfs.preferred() == way


def test_nobody_can_write_through_9p():
    """QEMU itself refuses writes: root in the guest cannot undo that."""
    root = rootfs.ninep()
    assert "readonly=on" in root.qemu_args[1]
    assert root.options.startswith("ro,")


def test_the_kernel_hears_of_its_root_in_the_way_it_boots():
    """Without an initramfs the words are the kernel's own; with one, they are for its script."""
    assert rootfs.kernel_words(rootfs.virtiofs(3), KERNELS["6.12"]) == [
        "rootfstype=virtiofs",
        "root=rootfs",
        "ro",
    ]
    assert rootfs.kernel_words(rootfs.virtiofs(3), KERNELS["6.1"]) == [
        "labroot=virtiofs",
        "labrootopts=ro",
    ]
