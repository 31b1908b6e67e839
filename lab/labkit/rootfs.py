"""How the guest reaches the host's files, which are its root: virtiofs, or 9p.

virtiofs is faster and needs no module, but its daemon needs root. 9p is served by QEMU itself,
so anybody can use it; but the kernel with 9p is three times as big a download.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.kernels import Kernel

TAG = "rootfs"

# QEMU brought its own daemon until Debian 12; since then it is a program of its own (other flags).
_BUNDLED_DAEMON = "/usr/lib/qemu/virtiofsd"
_OWN_DAEMONS = ("/usr/libexec/virtiofsd", "/usr/lib/virtiofsd")


@dataclass(frozen=True)
class RootFs:
    """One way to the root: what QEMU is told, and what the kernel is told."""

    qemu_args: tuple[str, ...]
    kind: str
    options: str


def find_daemon() -> str | None:
    """Return the path of virtiofsd, which distributions keep out of PATH."""
    for path in (_BUNDLED_DAEMON, *_OWN_DAEMONS):
        if os.access(path, os.X_OK):
            return path
    return shutil.which("virtiofsd")


def preferred() -> str:
    """Return the way to take here."""
    return "virtiofs" if os.geteuid() == 0 and find_daemon() else "9p"


def daemon_command(daemon: str, listener: int) -> list[str]:
    """Return the command that serves / on a listening socket.

    cache=always: the guest need not ask again for what it knows; it may miss what the host edits
    after the boot. sandbox=chroot works inside containers, where namespaces may not.
    """
    if daemon == _BUNDLED_DAEMON:
        options = ("source=/", "cache=always", "sandbox=chroot", "no_posix_lock", "log_level=warn")
        return [daemon, f"--fd={listener}", *(w for o in options for w in ("-o", o))]
    return [
        *(daemon, f"--fd={listener}", "--shared-dir=/", "--cache=always"),
        *("--sandbox=chroot", "--log-level=warn"),
    ]


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket and the first connection to it.

    The daemon takes the one and QEMU the other: nobody has to wait for a socket file to appear,
    and its directory is gone before either starts.
    """
    directory = tempfile.mkdtemp(prefix="movepages-lab-")
    try:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(Path(directory, "fs")))
        listener.listen(1)
        client = socket.socket(socket.AF_UNIX)
        client.connect(listener.getsockname())
    finally:
        shutil.rmtree(directory)
    return listener, client


def virtiofs(connection: int) -> RootFs:
    """Return the way through virtiofsd, which QEMU reaches by this descriptor."""
    qemu = (
        *("-chardev", f"socket,id=vfs,fd={connection}"),
        *("-device", f"vhost-user-fs-pci,chardev=vfs,tag={TAG},queue-size=1024"),
    )
    return RootFs(qemu, "virtiofs", "ro")


def ninep() -> RootFs:
    """Return the way through QEMU's own 9p server; QEMU enforces that nothing is written."""
    options = "security_model=none,readonly=on,multidevs=remap"
    return RootFs(
        ("-virtfs", f"local,path=/,mount_tag={TAG},{options}"),
        "9p",
        # Without a large msize, reading Python's files one by one is unbearable.
        "ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288",
    )


def kernel_words(root: RootFs, kernel: Kernel) -> list[str]:
    """Return what the kernel command line says about the root.

    With an initramfs the words are for its script, which finds them in its environment.
    """
    if kernel.modules:
        return [f"labroot={root.kind}", f"labrootopts={root.options}"]
    return [f"rootfstype={root.kind}", f"root={TAG}", "ro"]
