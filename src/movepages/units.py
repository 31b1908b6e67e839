"""Sizes, rates and addresses as people write them. Sizes are in bytes, rates in bytes a second.

K, M, G and T are binary, as everywhere in this ecosystem: `64M`, `64MiB` and `64MB` are 64 * 2**20.
"""

import re

from movepages.errors import SizeError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_ADDRESS = re.compile(r"(?:0x)?[0-9a-f]+", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read a size in bytes: `4096`, `64K`, `1.5G`, `64 MiB`. Raises SizeError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise SizeError(f"{text!r} is not a size; write it like 4096, 64K or 1.5G", text=text)
    number, suffix = match.groups()
    size = float(number) * 1024 ** _POWER[suffix.lower()]
    if not size.is_integer():
        raise SizeError(f"{text!r} is not a whole number of bytes", text=text)
    return int(size)


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
    if value == int(value):
        return f"{value:.0f}{suffix}"
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}{suffix}"
