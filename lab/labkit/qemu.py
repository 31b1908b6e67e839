"""The QEMU command line: a pure function of the machine, the kernel, the root and descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from labkit import rootfs, topologies
from labkit.children import path_of
from labkit.project import LAB, Project

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.kernels import Installed

PROGRAM = "qemu-system-x86_64"


@dataclass(frozen=True)
class Wires:
    """Descriptors that QEMU inherits: the console's file, two lines, the initramfs if any."""

    console: int
    line: int
    monitor: int
    initramfs: int | None = None

    @property
    def descriptors(self) -> list[int]:
        """All of them."""
        every = (self.console, self.line, self.monitor, self.initramfs)
        return [fd for fd in every if fd is not None]


def command(
    program: str,
    topology: topologies.Topology,
    kernel: Installed,
    project: Project,
    root: rootfs.RootFs,
    wires: Wires,
) -> list[str]:
    """Return the command that boots this kernel on this machine."""
    initrd = ["-initrd", path_of(wires.initramfs)] if wires.initramfs is not None else []
    return [
        program,
        # Never kvm:tcg: /dev/kvm may open and then hang.
        *("-accel", "tcg,thread=multi,tb-size=256"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # With panic=-1 a panic ends QEMU at once.
        "-no-reboot",
        *topologies.qemu_args(topology),
        *("-chardev", f"file,id=console,path={path_of(wires.console)}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={wires.monitor}"),
        *("-mon", "chardev=monitor,mode=readline"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=lab,fd={wires.line}"),
        *("-device", "virtserialport,chardev=lab,name=lab.0"),
        *root.qemu_args,
        *("-kernel", str(kernel.image)),
        *initrd,
        *("-append", kernel_command_line(topology, kernel, project, root)),
    ]


def kernel_command_line(
    topology: topologies.Topology, kernel: Installed, project: Project, root: rootfs.RootFs
) -> str:
    """Return the kernel's command line.

    A bare word that the kernel does not know becomes an argument of init and breaks it, while
    `key=value` becomes a variable of init's environment: ours are all of that form. AutoNUMA and
    THP `always`, both Debian's defaults, would race with assertions about where pages are.
    """
    python = _quoted(project.python)
    keeps = ":".join(quote(str(path)) for path in project.keeps)
    return " ".join(
        [
            *("console=ttyS0", "panic=-1", "quiet", "mitigations=off"),
            *("numa_balancing=disable", "transparent_hugepage=madvise"),
            # A guest that hangs is sent an NMI, for the trace.
            "unknown_nmi_panic=1",
            *topology.kernel_args,
            *rootfs.kernel_words(root, kernel.kernel),
            f"labkeep={keeps}",
            *(f"{key}={python}" for key in ("init", "labpython")),
            *("--", "-I", "-S", _quoted(LAB / "guest" / "pid1.py")),
        ]
    )


def _quoted(path: Path) -> str:
    """Return a path as one word of the kernel's command line."""
    return f'"{path}"' if " " in str(path) else str(path)
