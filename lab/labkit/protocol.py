"""What host and guest say to each other over the virtio-serial port: one JSON object a line.

Host to guest:

    {"run": [argv...], "cwd": ..., "env": {...}, "uid": n, "timeout": seconds or 0}
    {"fetch": path}

Guest to host:

    {"hello": kernel release}             once, when it is ready
    {"out": base64} / {"err": base64}     bytes of the command, as they come
    {"beat": 1}                           a silent command is still running
    {"rc": exit code, "timeout": bool}    the command has ended
    {"data": base64}                      a piece of the file asked for
    {"end": bytes} / {"missing": reason}  the file is complete, or cannot be had

Both sides import this module; `base64` is left alone because it imports `re`, which costs the
guest a tenth of a second.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

Message = dict[str, Any]

CHUNK_BYTES = 32 * 1024
BEAT_SECONDS = 5.0


def encode(message: Message) -> bytes:
    """Return the message as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def pack(data: bytes) -> str:
    """Return the bytes in a form that JSON can carry."""
    return binascii.b2a_base64(data, newline=False).decode()


def unpack(text: str) -> bytes:
    """Return the bytes that `pack` was given."""
    return binascii.a2b_base64(text)


class Decoder:
    """Puts messages together from pieces of a byte stream, wherever it was cut."""

    def __init__(self) -> None:
        """Start with nothing pending."""
        self._pending = b""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages completed by these bytes."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [json.loads(line) for line in lines if line]
