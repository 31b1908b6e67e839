from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from movepages.errors import SizeError
from movepages.units import format_size, parse_address, parse_range, parse_rate, parse_size

TOP = 2**64
"""One byte above the 64-bit address space."""

NO_NUMBERS = (
    "",
    " ",
    "x",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "1 2",
    "1.",
    ".5",
    "1,5",
    "1..5",
    "1_0",
    "nan",
)
NO_UNITS = ("K", "1Q", "64Kx", "1KM", "1BK", "\u0664K", "9" * 21, "0." + "0" * 21)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("64k", 65536),
        ("64KB", 65536),
        ("64KiB", 65536),
        ("64 kib", 65536),
        (" 1M ", 2**20),
        ("1.5G", 3 * 2**29),
        ("0.5K", 512),
        ("1.50G", 3 * 2**29),
        ("2T", 2**41),
        ("3P", 3 * 2**50),
        ("7B", 7),
        ("16G", 2**34),
        ("0.0009765625K", 1),
        ("18446744073709551615", TOP - 1),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes_are_binary_and_exact(text, size_bytes):
    """K to P are powers of 1024, in any spelling, and no digit is lost to rounding."""
    assert parse_size(text) == size_bytes


@given(st.integers(0, 2**62))
def test_any_number_of_bytes_is_read_exactly(size_bytes):
    """A plain number of bytes is that number."""
    assert parse_size(str(size_bytes)) == size_bytes


@pytest.mark.parametrize("text", [*NO_NUMBERS, *NO_UNITS])
def test_what_is_no_size_is_refused(text):
    """Garbage is named, carried by the error, and an example says how to write it."""
    with pytest.raises(SizeError, match="is not a size; write it like 4096, 64K or") as caught:
        parse_size(text)
    assert caught.value.text == text


@pytest.mark.parametrize("text", ["0.1K", "1.5", "0.3G", "1.0001K"])
def test_a_part_of_a_byte_is_refused(text):
    """A size has whole bytes."""
    with pytest.raises(SizeError, match="whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"), [("200M", 200 << 20), ("200M/s", 200 << 20), (" 1 GiB/s ", 1 << 30)]
)
def test_rates_are_sizes_a_second(text, bytes_per_s):
    """A rate may have /s behind it."""
    assert parse_rate(text) == bytes_per_s


@pytest.mark.parametrize("text", ["/s", "1M/m", "1M/s/s", ""])
def test_what_is_no_rate_is_refused(text):
    """Other times than a second are not rates."""
    with pytest.raises(SizeError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0", 0),
        ("7f12a4000000", 0x7F12A4000000),
        ("0x7f12a4000000", 0x7F12A4000000),
        ("0X7F12A4000000", 0x7F12A4000000),
        ("10", 16),
        ("ffffffffffffffff", TOP - 1),
        ("0000000000000000000000010", 16),
    ],
)
def test_addresses_are_hexadecimal(text, address):
    """Addresses are read as /proc/PID/maps prints them, with or without 0x."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "0x", "-1", " 10", "10 ", "g", "0x0x1", "1_0", "\u0664", "+1"]
)
def test_what_is_no_address_is_refused(text):
    """Garbage is named, and an example says how to write it."""
    with pytest.raises(SizeError, match="is not an address; write it in hexadecimal") as caught:
        parse_address(text)
    assert caught.value.text == text


def test_an_address_above_64_bits_is_refused():
    """The last address is 2**64 - 1."""
    with pytest.raises(SizeError, match="above the 64-bit address space"):
        parse_address("10000000000000000")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1000-2000", 0x1000, 0x2000),
        ("0x1000-0x2000", 0x1000, 0x2000),
        ("1000+4K", 0x1000, 0x2000),
        ("1000+4096", 0x1000, 0x2000),
        ("0-1", 0, 1),
        ("1000-1001", 0x1000, 0x1001),
        ("fffffffffffff000+4095", TOP - 4096, TOP - 1),
    ],
)
def test_ranges_have_an_end_or_a_size(text, start, end):
    """The end is excluded; behind + stands a size, in decimal as sizes are."""
    assert parse_range(text) == (start, end)


@pytest.mark.parametrize("text", ["2000-1000", "1000-1000", "1000+0", "1000+0K"])
def test_reversed_and_empty_ranges_are_refused(text):
    """A range has at least one byte."""
    with pytest.raises(SizeError, match="ends before it starts or is empty"):
        parse_range(text)


@pytest.mark.parametrize("text", ["fffffffffffff000+4K", "1000+99999P"])
def test_ranges_past_the_end_are_refused(text):
    """A range ends inside the 64-bit address space."""
    with pytest.raises(SizeError, match="ends above the 64-bit address space"):
        parse_range(text)


@pytest.mark.parametrize(
    "text", ["", "1000", "-", "1000-", "-1000", "1-2-3", "1000+", "+4K", "a+b"]
)
def test_what_is_no_range_is_refused(text):
    """Both halves must be there, and be what they should be."""
    with pytest.raises(SizeError):
        parse_range(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1.50K"),
        (4096, "4K"),
        (10 * 1024 + 512, "10.5K"),
        (100 * 1024 + 512, "100K"),
        (10235, "10.0K"),
        (102358, "100K"),
        (999 * 1024, "999K"),
        (1023487, "999K"),
        (1023488, "0.98M"),  # 999.5K, which three digits would make 1000K
        (1000 * 1024, "0.98M"),
        (2**20 - 1, "1.00M"),
        (2**20, "1M"),
        (3 * 2**29, "1.50G"),
        (2**40, "1T"),
        (2**50, "1P"),
        (5000 * 2**50, "5000P"),
        (5000.5 * 2**50, "5000P"),
    ],
)
def test_sizes_are_written_with_three_digits(size_bytes, text):
    """The unit is the largest that leaves a number below 1000; whole numbers have no fraction."""
    assert format_size(size_bytes) == text


@given(st.integers(1024, 999 * 2**50))
def test_a_written_size_is_near_and_short(size_bytes):
    """Whatever the size, three digits say it to one part in 180 and fit in six columns."""
    text = format_size(size_bytes)
    assert len(text) <= 5
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP])", text).groups()
    assert len(number.replace(".", "")) <= 3
    said = float(number) * 1024 ** (1 + "KMGTP".index(unit))
    assert abs(said - size_bytes) <= size_bytes / 180


@given(st.integers(0, 2**30), st.sampled_from("KMGTP"))
def test_whole_sizes_survive_writing_and_reading(number, unit):
    """A size that is a whole number of its unit is written exactly."""
    size_bytes = parse_size(f"{number % 1000}{unit}")
    assert parse_size(format_size(size_bytes)) == size_bytes
