from __future__ import annotations

import json
from pathlib import Path

import pytest
from labkit import kernels
from labkit.errors import UnavailableError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache."""
    monkeypatch.setenv("MOVEPAGES_LAB_CACHE", str(tmp_path))
    return tmp_path


def test_the_cache_can_be_put_anywhere(cache, monkeypatch):
    """Its own variable comes first, then the one of the desktop, then the home directory."""
    assert kernels.cache_dir() == cache
    monkeypatch.delenv("MOVEPAGES_LAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert kernels.cache_dir() == Path("/x/movepages/lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert kernels.cache_dir() == Path("/h/.cache/movepages/lab")


def test_a_missing_kernel_says_how_to_get_it(cache):
    """What is missing, where it was looked for and what to run stand in one line."""
    with pytest.raises(UnavailableError) as raised:
        kernels.require(kernels.KERNELS["6.12-9p"])
    assert str(raised.value) == (
        f"no kernel 6.12-9p in {cache}: run `lab/run setup --kernel 6.12 --root 9p`"
    )
    assert raised.value.code == 126


@pytest.mark.usefixtures("cache")
def test_an_unfinished_download_is_no_kernel(cache):
    """Only the stamp, written last, makes a directory a kernel."""
    (cache / "6.12").mkdir()
    (cache / "6.12" / "vmlinuz").touch()
    assert kernels.find(kernels.KERNELS["6.12"]) is None


def test_the_uncompressed_image_is_preferred(cache):
    """The image that saves the guest its decompression is booted where there is one."""
    directory = cache / "6.1"
    directory.mkdir()
    stamp = {"package": "p", "release": "6.1.0-1", "modules": ["a.ko"]}
    (directory / kernels.STAMP).write_text(json.dumps(stamp))
    found = kernels.require(kernels.KERNELS["6.1"])
    assert (found.release, found.modules) == ("6.1.0-1", ("a.ko",))
    assert found.image == directory / "vmlinuz"
    (directory / "vmlinux").touch()
    assert found.image == directory / "vmlinux"


@pytest.mark.parametrize("choice", kernels.CHOICES)
@pytest.mark.parametrize("root", ["virtiofs", "9p"])
def test_every_choice_has_both_ways_to_its_root(choice, root):
    """A kernel that can be asked for exists for both root file systems, in the same release."""
    kernel = kernels.variant(choice, root)
    assert kernel.root == root
    assert kernel.release == f"{choice}."
