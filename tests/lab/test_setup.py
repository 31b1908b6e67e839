from __future__ import annotations

import io
import shutil

import pytest
from labkit import kernels, rootfs, setup
from labkit.errors import UnavailableError

LISTING = """\
linux-image-cloud-amd64
  Depends: linux-image-6.1.0-56-cloud-amd64
  Recommends: linux-image-6.1.9
"""


def test_the_point_release_comes_from_the_package_lists():
    """What the metapackage depends on is the kernel's package, whatever it is called today."""
    assert setup.dependency(LISTING, "6.1.") == "linux-image-6.1.0-56-cloud-amd64"


def test_a_metapackage_of_another_release_does_not_count():
    """A newer distribution's metapackage of the same name leads to another kernel."""
    assert setup.dependency(LISTING, "6.12.") is None
    assert setup.dependency("", "6.12.") is None


def test_an_alternative_dependency_counts():
    """apt-cache marks alternatives with a bar."""
    assert setup.dependency(" |Depends: linux-image-6.12.9-x", "6.12.") == "linux-image-6.12.9-x"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that says which programs are here and who we are."""
    monkeypatch.setenv("MOVEPAGES_LAB_CACHE", str(tmp_path))

    def be(programs=(), uid=0, daemon="/virtiofsd"):
        monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.setattr("os.geteuid", lambda: uid)
        monkeypatch.setattr(rootfs, "find_daemon", lambda: daemon)

    return be


def refusal(names=("6.12",)):
    """Return the line with which setup refuses."""
    with pytest.raises(UnavailableError) as raised:
        setup.setup(list(names), "auto", print)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_elsewhere_than_on_debian_it_says_what_is_missing(machine):
    """Without apt-get nothing is tried."""
    machine()
    assert refusal().startswith("not a Debian system: qemu-system-x86_64 and kernels are missing")


def test_only_root_installs(machine):
    """Another user is told which package is missing."""
    machine(programs=("apt-get", "dpkg-deb"), uid=1000)
    assert refusal() == "only root can install package qemu-system-x86, which is missing"


def test_qemu_without_debian_still_lacks_the_kernels(machine):
    """Where QEMU is but Debian's tools are not, the kernels are what is left out."""
    machine(programs=("qemu-system-x86_64",))
    assert refusal().startswith("not a Debian system: the kernels")


def test_a_second_time_does_nothing(machine, monkeypatch, capsys):
    """With everything there, no program of the package system is started."""
    machine(programs=("qemu-system-x86_64",))
    monkeypatch.setattr(kernels, "find", lambda kernel: kernel)
    setup.setup(["6.12", "6.1"], "auto", print)
    assert capsys.readouterr().out == "all is there\n"


def test_the_package_lists_are_refreshed_once(monkeypatch):
    """A failure is answered by one refresh and one more try, as root."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    ran = []
    monkeypatch.setattr(setup, "_checked", ran.append)

    def attempt():
        if not ran:
            raise UnavailableError("stale")
        return "package"

    assert setup._retried(attempt) == "package"
    assert ran == [["apt-get", "-qq", "update"]]


def test_what_is_kept_of_a_package(tmp_path):
    """The image, the configuration, the list of built-ins and candidate modules, nothing else."""
    (tmp_path / "modules").mkdir()
    for name in (
        "./boot/vmlinuz-6.1.0",
        "./boot/config-6.1.0",
        "./boot/System.map-6.1.0",
        "./lib/modules/6.1.0/modules.builtin",
        "./lib/modules/6.1.0/kernel/fs/fuse/virtiofs.ko",
        "./lib/modules/6.1.0/kernel/net/9p/9pnet-x.ko",
        "./lib/modules/6.1.0/kernel/drivers/gpu/drm/drm.ko",
    ):
        setup._keep(name, io.BytesIO(name.encode()), tmp_path)
    kept = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert kept == [
        "config",
        "modules.builtin",
        "modules/9pnet_x.ko",
        "modules/virtiofs.ko",
        "vmlinuz",
    ]
