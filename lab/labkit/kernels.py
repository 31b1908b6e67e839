"""The kernels that the lab can boot: what they are called in Debian, and where they are kept.

A kernel is never installed. Its package is downloaded, its image (and the few modules that it
needs to reach its root) are taken out and kept in a directory of their own below `cache_dir()`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import UnavailableError

STAMP = "kernel.json"


@dataclass(frozen=True)
class Kernel:
    """A kernel as the lab knows it.

    `metapackages` are tried in this order, and count only if they lead to a package of
    `release`: what `linux-image-cloud-amd64` means depends on the distribution's release.
    `root` is how it reaches its root. `modules` are those that an initramfs must load before the
    root can be mounted; none, no initramfs.
    """

    name: str
    release: str
    metapackages: tuple[str, ...]
    root: str
    modules: tuple[str, ...] = ()
    download_mb: int = 0


_MODULES_VIRTIOFS = ("virtio_pci", "virtio_console", "virtiofs")
_MODULES_9P = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")

_KERNELS = (
    # Everything built in that a virtiofs root needs: boots without an initramfs.
    Kernel(
        name="6.12",
        release="6.12.",
        metapackages=("linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"),
        root="virtiofs",
        download_mb=34,
    ),
    Kernel(
        name="6.1",
        release="6.1.",
        metapackages=("linux-image-6.1-cloud-amd64", "linux-image-cloud-amd64"),
        root="virtiofs",
        modules=_MODULES_VIRTIOFS,
        download_mb=30,
    ),
    # The cloud kernels have no 9p; the general ones do.
    Kernel(
        name="6.12-9p",
        release="6.12.",
        metapackages=("linux-image-6.12-amd64", "linux-image-amd64"),
        root="9p",
        modules=_MODULES_9P,
        download_mb=107,
    ),
    Kernel(
        name="6.1-9p",
        release="6.1.",
        metapackages=("linux-image-6.1-amd64", "linux-image-amd64"),
        root="9p",
        modules=_MODULES_9P,
        download_mb=70,
    ),
)

KERNELS = {kernel.name: kernel for kernel in _KERNELS}
DEFAULT_KERNEL = "6.12"
CHOICES = tuple(kernel.name for kernel in _KERNELS if kernel.root == "virtiofs")


def variant(choice: str, root: str) -> Kernel:
    """Return the kernel for a choice like "6.12" and a way to its root, "virtiofs" or "9p"."""
    return KERNELS[choice if root == "virtiofs" else f"{choice}-{root}"]


def cache_dir() -> Path:
    """Return where kernels are kept."""
    if own := os.environ.get("MOVEPAGES_LAB_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base, "movepages", "lab")


@dataclass(frozen=True)
class Installed:
    """A kernel in the cache."""

    kernel: Kernel
    directory: Path
    release: str
    modules: tuple[str, ...]

    @property
    def image(self) -> Path:
        """The image to boot: uncompressed where there is one, which saves two CPU seconds."""
        plain = self.directory / "vmlinux"
        return plain if plain.is_file() else self.directory / "vmlinuz"


def find(kernel: Kernel) -> Installed | None:
    """Return the kernel from the cache; None if it was never got."""
    directory = cache_dir() / kernel.name
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except FileNotFoundError:
        return None
    return Installed(kernel, directory, stamp["release"], tuple(stamp["modules"]))


def require(kernel: Kernel) -> Installed:
    """Return the kernel from the cache; raise UnavailableError with the way to get it."""
    installed = find(kernel)
    if installed is None:
        raise UnavailableError(
            f"no kernel {kernel.name} in {cache_dir()}: run `{how_to_get(kernel)}`"
        )
    return installed


def how_to_get(kernel: Kernel) -> str:
    """Return the command that gets this kernel."""
    choice = kernel.name.removesuffix(f"-{kernel.root}")
    return f"lab/run setup --kernel {choice} --root {kernel.root}"
