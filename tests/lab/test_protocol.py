from __future__ import annotations

import pytest
from labkit.protocol import Decoder, encode, pack, unpack

MESSAGES = [{"hello": "6.12"}, {"out": pack(bytes(range(256)))}, {"rc": 0, "timeout": False}]
STREAM = b"".join(encode(message) for message in MESSAGES)


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_messages_survive_any_cut(size):
    """However the stream is cut, the messages come out whole and in order."""
    decoder = Decoder()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [m for piece in pieces for m in decoder.feed(piece)] == MESSAGES


def test_half_a_message_is_kept_back():
    """A message is not handed out before its end has come."""
    decoder = Decoder()
    assert decoder.feed(STREAM[:5]) == []
    assert decoder.feed(STREAM[5:]) == MESSAGES


def test_a_message_is_one_line():
    """A line break inside a value does not end the message."""
    assert encode({"run": ["sh", "-c", "a\nb"]}).count(b"\n") == 1


def test_bytes_are_unmodified():
    """All bytes pass, also those that are no text."""
    data = bytes(range(256)) * 3
    assert unpack(pack(data)) == data
