"""What the lab finds on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from labkit import kernels, rootfs
from labkit.qemu import PROGRAM


@dataclass(frozen=True)
class Check:
    """One thing that the lab looks for. `needed` things decide whether it can run here."""

    name: str
    found: str | None
    remedy: str
    needed: bool


def examine() -> list[Check]:
    """Look for everything; the way to the root decides what is needed."""
    way = rootfs.preferred()
    return [
        Check(PROGRAM, shutil.which(PROGRAM), "lab/run setup, as root", needed=True),
        Check("virtiofsd", rootfs.find_daemon(), "lab/run setup, as root", needed=False),
        *(_kernel_check(kernel, way) for kernel in kernels.KERNELS.values()),
    ]


def _kernel_check(kernel: kernels.Kernel, way: str) -> Check:
    """Look for one kernel."""
    installed = kernels.find(kernel)
    default = kernels.variant(kernels.DEFAULT_KERNEL, way)
    return Check(
        f"kernel {kernel.name}",
        installed.release if installed else None,
        f"{kernels.how_to_get(kernel)}  ({kernel.download_mb} MB)",
        needed=kernel == default,
    )


def can_run(checks: list[Check]) -> bool:
    """Tell whether everything needed is there."""
    return all(check.found for check in checks if check.needed)


def render(checks: list[Check], way: str) -> str:
    """Return the checks as a table, and the verdict for this way to the root."""
    rows = []
    for check in checks:
        state = "ok" if check.found else "missing" if check.needed else "absent"
        rows.append(f"{state:<8} {check.name:<18}  {check.found or check.remedy}")
    verdict = "can run" if can_run(checks) else "cannot run"
    rows.append(f"The lab {verdict} here (root file system: {way}).")
    return "\n".join(rows)
