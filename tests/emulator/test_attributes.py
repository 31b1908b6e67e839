"""Attributes of the generated tree: what a program reads, and what comes of what it writes."""

from __future__ import annotations

import os

import pytest

from movepages.emulator.attributes import Attribute, Attributes

SIZE = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
FREE = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages"


@pytest.fixture
def events():
    """Collects what happens, in order."""
    return []


@pytest.fixture
def attributes(events):
    """A size of 10 that may be set, and a number of free pages that may not."""
    return Attributes(
        {SIZE: Attribute(lambda: 10, events.append), FREE: Attribute(lambda: 4)},
        lambda: events.append("before"),
    )


@pytest.fixture
def file(tmp_path):
    """The file of an attribute in the tree."""
    path = tmp_path / "nr_hugepages"
    path.write_text("10\n", encoding="ascii")
    path.chmod(0o444)
    return path


def written(file, *texts, flags=os.O_WRONLY):
    """Write to a file as its owner's root would, each text in one write(2)."""
    file.chmod(0o644)
    descriptor = os.open(file, flags)
    for text in texts:
        os.write(descriptor, text)
    os.close(descriptor)


def test_value_is_told_as_the_kernel_does(attributes):
    """An attribute is a number and a newline; what is none has no text."""
    assert attributes.text(SIZE) == b"10\n"
    assert attributes.text(FREE) == b"4\n"
    assert attributes.text("/sys/devices/system/node/node9/nr_hugepages") is None


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_TRUNC])
def test_what_is_written_is_set_once(attributes, events, file, flags):
    """A shorter text than was there before counts alone, whether or not the file is truncated."""
    attributes.open_to_write(SIZE, file)
    attributes.take_written()
    assert events == ["before"]
    written(file, b"5", flags=flags)
    attributes.take_written()
    attributes.take_written()
    assert events == ["before", "5"]


def test_what_was_written_before_an_open_counts_before_it(attributes, events, file):
    """Of two programs the first one's write is set before the second may write."""
    attributes.open_to_write(SIZE, file)
    written(file, b"5\n")
    attributes.open_to_write(SIZE, file)
    assert events == ["before", "5", "before"]
    written(file, b"5\n")
    attributes.take_written()
    assert events == ["before", "5", "before", "5"]


def test_what_was_written_counts_before_it_is_read(attributes, events, file):
    """A program reads what has become of what it wrote."""
    attributes.open_to_write(SIZE, file)
    written(file, b"7\n")
    attributes.text(FREE)
    assert events == ["before", "7"]


def test_each_line_of_one_descriptor_is_set_in_turn(attributes, events, file):
    """Two writes behind one another are two settings; what is read in between is not set again."""
    attributes.open_to_write(SIZE, file)
    file.chmod(0o644)
    with file.open("wb", 0) as stream:
        stream.write(b"5\n")
        stream.write(b"6\n")
        attributes.take_written()
        stream.write(b"7\n")
        attributes.take_written()
    assert events == ["before", "5", "6", "7"]


def test_descriptor_may_be_written_again_from_its_start(attributes, events, file):
    """A daemon that keeps a file open sets the value at offset 0 each time, a shorter one too."""
    attributes.open_to_write(SIZE, file)
    file.chmod(0o644)
    with file.open("wb", 0) as stream:
        for text in (b"12\n", b"7\n"):
            stream.seek(0)
            stream.write(text)
            attributes.take_written()
    assert events == ["before", "12", "7"]


def test_blank_line_is_told_and_nothing_is_not(attributes, events, file):
    """An empty file is one that nobody has written to yet; a newline alone is a text."""
    attributes.open_to_write(SIZE, file)
    written(file, b"")
    attributes.take_written()
    written(file, b"\n")
    attributes.take_written()
    assert events == ["before", ""]


def test_bytes_that_are_no_text_do_no_harm(attributes, events, file):
    """What is not ASCII is told as such, for whoever sets the value to pass over."""
    attributes.open_to_write(SIZE, file)
    written(file, b"\xff1\n")
    attributes.take_written()
    assert events == ["before", "\ufffd1"]


@pytest.mark.parametrize("name", [FREE, "/sys/devices/system/node/online"])
def test_what_cannot_be_set_is_left_alone(attributes, events, file, name):
    """Neither a number that is only told nor any other file is emptied."""
    attributes.open_to_write(name, file)
    assert file.read_text(encoding="ascii") == "10\n"
    assert events == []


def test_rights_of_the_file_stay_as_they_were(attributes, file):
    """A file that its owner may not write is emptied, and is one still."""
    attributes.open_to_write(SIZE, file)
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (0, 0o444)
