"""Sizes, rates and addresses as people write them. Sizes are in bytes, rates in bytes a second.

K, M, G and T are binary, as everywhere in this ecosystem: `64M`, `64MiB` and `64MB` are 64 * 2**20.
"""

import re

from movepages.errors import SizeError

_SIZE = re.compile(r"\s*([0-9]{1,20})(?:\.([0-9]{1,20}))?\s*([kmgtp]?)(?:i?b)?\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_ADDRESS = re.compile(r"(?:0x)?[0-9a-f]+", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read a size in bytes: `4096`, `64K`, `1.5G`, `64 MiB`. Raises SizeError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise SizeError(f"{text!r} is not a size; write it like 4096, 64K or 1.5G", text=text)
    whole, fraction, suffix = match[1], match[2] or "", match[3].lower()
    scaled = int(whole + fraction) << 10 * _POWER[suffix]  # a float would not be exact
    scale: int = 10 ** len(fraction)
    size, rest = divmod(scaled, scale)
    if rest:
        raise SizeError(f"{text!r} is not a whole number of bytes", text=text)
    return size


def parse_rate(text: str) -> int:
    """Read a rate in bytes a second: `200M`, `200M/s`. Raises SizeError."""
    return parse_size(text.strip().removesuffix("/s"))


def parse_address(text: str) -> int:
    """Read an address in hexadecimal, with or without 0x, as /proc/PID/maps has them."""
    if not _ADDRESS.fullmatch(text):
        raise SizeError(
            f"{text!r} is not an address; write it in hexadecimal, like 0x7f12a4000000", text=text
        )
    address = int(text, 16)
    if address >= 1 << 64:
        raise SizeError(f"{text!r} is above the 64-bit address space", text=text)
    return address


def parse_range(text: str) -> tuple[int, int]:
    """Read `START-END` (end excluded) or `START+SIZE`, addresses in hexadecimal."""
    if "+" in text:
        start_text, _, size_text = text.partition("+")
        start = parse_address(start_text)
        end = start + parse_size(size_text)
    else:
        start_text, _, end_text = text.partition("-")
        start, end = parse_address(start_text), parse_address(end_text)
    if end <= start:
        raise SizeError(f"range {text!r} ends before it starts or is empty", text=text)
    if end >= 1 << 64:
        raise SizeError(f"range {text!r} ends above the 64-bit address space", text=text)
    return start, end


def format_size(size_bytes: float) -> str:
    """Write a size in bytes for a person, with three digits: `0`, `4K`, `1.50G`."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f}"
    value = float(size_bytes)
    for suffix in "KMGTP":
        value /= 1024
        if value < 999.5 or suffix == "P":
            break
    if value == int(value) or value >= 999.5:
        return f"{value:.0f}{suffix}"
    digits = f"{value:#.3g}" if value >= 1 else f"{value:.2f}"
    return digits.rstrip(".") + suffix
