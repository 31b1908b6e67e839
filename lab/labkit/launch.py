"""Starting a guest's processes and taking them down.

The launcher's ends and the children's ends of everything that connects them are descriptors
without a name in the file system, so there is nothing to tidy up that could be left behind.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from labkit import children, initramfs, qemu, rootfs
from labkit.errors import GuestDiedError, UnavailableError
from labkit.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from labkit.kernels import Installed
    from labkit.project import Project
    from labkit.topologies import Topology


@contextmanager
def boot(
    topology: Topology, kernel: Installed, project: Project, console: Path | None = None
) -> Iterator[Guest]:
    """Boot a guest; whatever happens, nothing of it is left but its console, if asked for."""
    with ExitStack() as stack:
        guest = _started(topology, kernel, project, stack)
        if console:
            stack.callback(lambda: console.write_text(guest.console() + "\n"))
        yield guest


def _started(topology: Topology, kernel: Installed, project: Project, stack: ExitStack) -> Guest:
    """Return a guest that is up.

    About one boot in twenty panics under emulation, when the kernel patches its own code while
    another CPU runs it (Oops: int3). Such a boot says nothing of what is to run, so it has a second
    try, and says so.
    """
    with ExitStack() as first:
        guest = _start(topology, kernel, project, first)
        try:
            guest.wait_until_ready()
        except GuestDiedError as problem:
            print(
                f"lab: {str(problem).splitlines()[0]} while it booted: once more", file=sys.stderr
            )
        else:
            stack.push(first.pop_all())
            return guest
    guest = _start(topology, kernel, project, stack)
    guest.wait_until_ready()
    return guest


def _start(topology: Topology, kernel: Installed, project: Project, stack: ExitStack) -> Guest:
    """Start the file server and QEMU; what the stack undoes is entered the moment it exists.

    A signal may come between a child's start and its entry: the launcher ends then, and with it
    the child, by `die_with_parent`.
    """
    program = find_qemu()
    console = _anonymous_file("console", stack)
    log = _anonymous_file("log", stack)
    line, line_end = _socket_pair(stack)
    monitor, monitor_end = _socket_pair(stack)
    archive = _initramfs(kernel, stack)
    wires = qemu.Wires(console, line_end, monitor_end, archive)
    inherited = wires.descriptors
    root = rootfs.ninep()
    if kernel.kernel.root == "virtiofs":
        connection = _serve_files(log, stack)
        inherited.append(connection)
        root = rootfs.virtiofs(connection)
    words = qemu.command(program, topology, kernel, project, root, wires)
    _spawn(words, inherited, log, children.die_with_parent, stack)
    # Only QEMU may hold its end: when it ends, our end tells.
    os.close(line_end)
    os.close(monitor_end)
    environment = project.environment(topology.name, kernel.kernel.name)
    return Guest(project.root, environment, line, monitor, console, log)


def find_qemu() -> str:
    """Return QEMU's path; raise UnavailableError where it is not installed."""
    program = shutil.which(qemu.PROGRAM)
    if program is None:
        raise UnavailableError(f"no {qemu.PROGRAM}: run `lab/run setup` as root")
    return program


def _anonymous_file(name: str, stack: ExitStack, data: bytes = b"") -> int:
    """Return a descriptor of a file in memory."""
    fd = children.anonymous_file(name, data)
    stack.callback(os.close, fd)
    return fd


def _socket_pair(stack: ExitStack) -> tuple[int, int]:
    """Return our end, closed at the end of all, and the end for a child, closed by the caller."""
    ours, theirs = socket.socketpair()
    stack.callback(os.close, ours.fileno())
    return ours.detach(), theirs.detach()


def _initramfs(kernel: Installed, stack: ExitStack) -> int | None:
    """Return a descriptor of the kernel's initramfs; None if it needs none."""
    if not kernel.modules:
        return None
    modules = [kernel.directory / "modules" / name for name in kernel.modules]
    archive = initramfs.build(kernel.directory / "busybox", modules)
    return _anonymous_file("initramfs", stack, archive)


def _serve_files(log: int, stack: ExitStack) -> int:
    """Start virtiofsd; return the descriptor of a connection to it."""
    daemon = rootfs.find_daemon()
    if daemon is None:
        raise UnavailableError("no virtiofsd: run `lab/run setup` as root, or use --root 9p")
    listener, connection = rootfs.connected_pair()
    stack.enter_context(connection)
    with listener:
        words = rootfs.daemon_command(daemon, listener.fileno())
        _spawn(words, [listener.fileno()], log, _prepare_server, stack)
    return connection.fileno()


def _prepare_server() -> None:
    """Run between fork and exec of the file server."""
    children.see_files_read_only()
    children.die_with_parent()


def _spawn(
    words: list[str], inherited: list[int], log: int, prepare: Callable[[], None], stack: ExitStack
) -> None:
    """Start a child in a session of its own: Ctrl-C is for the launcher, which then ends it."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=inherited,
        start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509 - unsafe with threads, and the launcher has none
    )
    # The root is read-only, so nothing in the guest needs a shutdown.
    stack.callback(process.wait)
    stack.callback(process.kill)
