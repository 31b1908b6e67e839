"""Getting what the lab needs: QEMU from the distribution's packages, kernels into the cache.

Nothing of a kernel is installed on the host. A kernel is put together in `NAME.part` and renamed
when it is whole, so an interrupted download never looks like a kernel.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, TypeVar

from labkit import bzimage, kernels, modules, rootfs
from labkit.errors import UnavailableError
from labkit.qemu import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.kernels import Kernel

Say = Callable[[str], None]

_T = TypeVar("_T")

# Where the modules are that `Kernel.modules` and what they depend on come from.
_MODULE_PLACES = ("drivers/virtio/", "drivers/char/", "fs/", "net/9p/", "lib/")


def setup(names: list[str], root: str, say: Say) -> None:
    """Get QEMU and these kernels, for this way to the root; what is there is left alone."""
    busy = _install_programs(say)
    way = rootfs.preferred() if root == "auto" else root
    missing = [k for k in (kernels.variant(name, way) for name in names) if not kernels.find(k)]
    if missing and not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("not a Debian system: the kernels are Debian packages, and left out")
    problems = []
    for kernel in missing:
        try:
            _get_kernel(kernel, say)
        except (UnavailableError, OSError) as problem:
            problems.append(str(problem))
    if problems:
        raise UnavailableError("; ".join(problems))
    if not missing and not busy:
        say("all is there")


def _install_programs(say: Say) -> bool:
    """Install QEMU and its file server if they are missing; tell whether anything was."""
    if not shutil.which(PROGRAM):
        _install("qemu-system-x86", say)
    elif os.geteuid() != 0 or rootfs.find_daemon():
        return False
    if os.geteuid() == 0 and not rootfs.find_daemon():
        # Debian 13's QEMU has no virtiofsd of its own. Without one, 9p does.
        with suppress(UnavailableError):
            _install("virtiofsd", say)
    return True


def _install(package: str, say: Say) -> None:
    """Install a package; raise UnavailableError where that is not possible."""
    if not shutil.which("apt-get"):
        raise UnavailableError(f"not a Debian system: {PROGRAM} and kernels are missing, left out")
    if os.geteuid() != 0:
        raise UnavailableError(f"only root can install package {package}, which is missing")
    say(f"installing {package}")
    words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    _retried(lambda: _checked(words))


def _get_kernel(kernel: Kernel, say: Say) -> None:
    """Download a kernel's package and keep what the lab needs of it."""
    with _locked(kernels.cache_dir()) as cache:
        if kernels.find(kernel):
            return
        package = _retried(lambda: resolve(kernel))
        say(f"kernel {kernel.name}: {package}, {kernel.download_mb} MB")
        part = cache / f"{kernel.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _unpack_kernel(_retried(lambda: _download(package, part)), part)
        order = _choose_modules(kernel, part)
        if order:
            _add_busybox(part)
        stamp = {
            "package": package,
            "release": package.removeprefix("linux-image-"),
            "modules": order,
        }
        (part / kernels.STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        whole = cache / kernel.name
        shutil.rmtree(whole, ignore_errors=True)
        part.rename(whole)


@contextmanager
def _locked(directory: Path) -> Iterator[Path]:
    """Hold the cache's lock: two set-ups at the same time would share a `.part`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def resolve(kernel: Kernel) -> str:
    """Return the package with the kernel, as the distribution names it today."""
    for metapackage in kernel.metapackages:
        listing = subprocess.run(
            ["apt-cache", "depends", metapackage], capture_output=True, text=True, check=False
        )
        if package := dependency(listing.stdout, kernel.release):
            return package
    raise UnavailableError(
        f"no kernel {kernel.name} in the package lists"
        f" ({' or '.join(kernel.metapackages)}): left out"
    )


def dependency(listing: str, release: str) -> str | None:
    """Return the kernel image of this release in what `apt-cache depends` printed."""
    for line in listing.splitlines():
        relation, _, package = line.strip().partition(": ")
        if relation.lstrip("|") == "Depends" and package.startswith(f"linux-image-{release}"):
            return package
    return None


def _download(package: str, directory: Path) -> Path:
    """Download a package's file into the directory, without installing it."""
    # apt's own user cannot write there, and warns about it.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    _checked(["apt-get", *sandbox, "-qq", "download", package], cwd=directory)
    return next(directory.glob("*.deb"))


def _checked(words: list[str], cwd: Path | None = None) -> None:
    """Run a command of the package system; where it fails, raise with what it complains of."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        complaint = next((row for row in done.stderr.splitlines() if row.startswith("E:")), "")
        raise UnavailableError(f"`{' '.join(words)}` failed: {complaint or 'no reason given'}")


def _retried(attempt: Callable[[], _T]) -> _T:
    """Do it; if it fails, refresh the package lists (as root) and do it once more."""
    try:
        return attempt()
    except UnavailableError:
        if os.geteuid() != 0:
            raise
    # It may fail for the sake of one foreign source; what matters is whether we get on.
    with suppress(UnavailableError):
        _checked(["apt-get", "-qq", "update"])
    return attempt()


def _unpack(archive: Path, keep: Callable[[str, IO[bytes]], None]) -> None:
    """Read through a package's files, without installing it; drop the package."""
    words = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE) as reader,
        tarfile.open(fileobj=reader.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                keep(member.name, content)
    if reader.returncode != 0:
        raise UnavailableError(f"{archive.name} could not be unpacked")
    archive.unlink()


def _unpack_kernel(archive: Path, part: Path) -> None:
    """Take the image, its configuration and the modules that may be needed out of a package."""
    (part / "modules").mkdir()
    _unpack(archive, lambda name, content: _keep(name, content, part))
    image = part / "vmlinuz"
    if not image.is_file():
        raise UnavailableError(f"there is no kernel in {archive.name}")
    if plain := bzimage.extract(image.read_bytes()):
        (part / "vmlinux").write_bytes(plain)


def _keep(name: str, content: IO[bytes], part: Path) -> None:
    """Write one member of a package to where the lab looks for it, if it does."""
    for prefix, target in (("./boot/vmlinuz-", "vmlinuz"), ("./boot/config-", "config")):
        if name.startswith(prefix):
            (part / target).write_bytes(content.read())
    if name.endswith("/modules.builtin"):
        (part / "modules.builtin").write_bytes(content.read())
    _, inside, place = name.partition("/kernel/")
    if inside and place.startswith(_MODULE_PLACES) and place.endswith(modules.SUFFIXES):
        target = f"{modules.name_of(place)}.ko"
        (part / "modules" / target).write_bytes(modules.plain(place, content.read()))


def _choose_modules(kernel: Kernel, part: Path) -> list[str]:
    """Keep the modules that this kernel needs; return their files in the order of loading."""
    available = {path.stem: path for path in (part / "modules").iterdir()}
    listing = (part / "modules.builtin").read_text()
    builtin = {modules.name_of(line) for line in listing.splitlines()}
    order = modules.load_order(kernel.modules, available, builtin)
    for name in available.keys() - set(order):
        available[name].unlink()
    return [available[name].name for name in order]


def _add_busybox(part: Path) -> None:
    """Put a static busybox, the initramfs's only program, beside the kernel."""
    busybox = part / "busybox"

    def keep(name: str, content: IO[bytes]) -> None:
        if name.endswith("/bin/busybox"):
            busybox.write_bytes(content.read())

    _unpack(_retried(lambda: _download("busybox-static", part)), keep)
    if not busybox.is_file():
        raise UnavailableError("there is no busybox in busybox-static")
