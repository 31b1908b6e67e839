from __future__ import annotations

import shutil
import subprocess

import pytest
from labkit import bzimage


def image(payload, magic=b"HdrS"):
    """Return a bzImage around a payload: two sectors of setup code, then some code, then it."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = magic
    setup[0x248:0x24C] = (100).to_bytes(4, "little")
    setup[0x24C:0x250] = (len(payload) + 4).to_bytes(4, "little")
    return bytes(setup) + bytes(100) + payload + b"size" + bytes(50)


@pytest.mark.skipif(not shutil.which("zstd"), reason="no zstd here")
def test_a_zstd_payload_is_unpacked():
    """The kernel comes out exactly, without the size that follows it and the code around it."""
    kernel = b"\x7fELF" + bytes(range(256)) * 40
    payload = subprocess.run(["zstd", "-c"], input=kernel, capture_output=True, check=True).stdout
    assert bzimage.extract(image(payload)) == kernel


@pytest.mark.parametrize(
    "data",
    [
        image(b"\x02!L\x18 lz4"),
        image(b"\x28\xb5\x2f\xfd damaged"),
        image(b"", magic=b"none"),
        b"short",
    ],
    ids=["lz4", "damaged", "no-header", "short"],
)
def test_what_cannot_be_unpacked_is_left(data):
    """Another compression or a damaged image is no error: the bzImage itself boots."""
    assert bzimage.extract(data) is None


def test_without_zstd_it_is_left(monkeypatch):
    """Where there is no zstd, the bzImage is booted."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert bzimage.extract(image(b"\x28\xb5\x2f\xfd")) is None
