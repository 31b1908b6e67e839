"""Taking the kernel proper out of a bzImage.

QEMU can boot the uncompressed ELF image (by its PVH entry point). The guest then need not
decompress itself, which under emulation costs two seconds of CPU at every boot.
"""

from __future__ import annotations

import shutil
import subprocess

_ELF = b"\x7fELF"
_ZSTD = b"\x28\xb5\x2f\xfd"
# Documentation/arch/x86/boot.rst: offsets in the setup header.
_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_PAYLOAD_OFFSET = 0x248
_PAYLOAD_LENGTH = 0x24C
_SECTOR_BYTES = 512


def extract(image: bytes) -> bytes | None:
    """Return the uncompressed kernel; None where its compression cannot be undone here."""
    payload = _payload(image)
    if payload is None or not payload.startswith(_ZSTD):
        return None
    kernel = _unzstd(payload)
    return kernel if kernel.startswith(_ELF) else None


def _payload(image: bytes) -> bytes | None:
    """Return the compressed kernel, without the four bytes of its size that follow it."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        return None
    start = (image[_SETUP_SECTORS] + 1) * _SECTOR_BYTES + _word(image, _PAYLOAD_OFFSET)
    return image[start : start + _word(image, _PAYLOAD_LENGTH) - 4]


def _word(image: bytes, offset: int) -> int:
    """Return the 32-bit number at an offset of the header."""
    return int.from_bytes(image[offset : offset + 4], "little")


def _unzstd(payload: bytes) -> bytes:
    """Return what the zstd program makes of it; nothing where there is none."""
    if not shutil.which("zstd"):
        return b""
    done = subprocess.run(["zstd", "-dcq"], input=payload, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""
