from __future__ import annotations

import os
import runpy

import pytest
from guest import agent
from labkit.project import LAB
from labkit.protocol import CHUNK_BYTES, unpack


class Recorder:
    """A port that keeps what is sent."""

    def __init__(self):
        """Start with nothing sent."""
        self.sent = []

    def send(self, message):
        """Keep a message."""
        self.sent.append(message)


def test_the_port_is_found_by_its_name(tmp_path):
    """The host's port is known by name: its number depends on the machine."""
    for device, name in (("vport1p1", "other"), ("vport2p1", agent.PORT_NAME)):
        (tmp_path / device).mkdir()
        (tmp_path / device / "name").write_text(f"{name}\n")
    assert agent.find_port(str(tmp_path)) == "/dev/vport2p1"


def test_a_guest_without_the_port_says_so(tmp_path):
    """A machine without the host's port is none of the lab's."""
    with pytest.raises(FileNotFoundError, match="no port named lab"):
        agent.find_port(str(tmp_path))


def test_a_file_is_sent_in_pieces(tmp_path):
    """A file of any size fits the line: it is sent in pieces, and its end is said."""
    data = bytes(range(256)) * (CHUNK_BYTES // 256) + b"rest"
    (tmp_path / "f").write_bytes(data)
    port = Recorder()
    agent.fetch(port, str(tmp_path / "f"))
    *pieces, end = port.sent
    assert b"".join(unpack(piece["data"]) for piece in pieces) == data
    assert len(pieces) == 2
    assert end == {"end": len(data)}


def test_a_missing_file_is_said(tmp_path):
    """What cannot be read is answered with the reason."""
    port = Recorder()
    agent.fetch(port, str(tmp_path / "none"))
    assert port.sent == [{"missing": "No such file or directory"}]


def test_outside_a_guest_nothing_is_killed(monkeypatch):
    """The agent kills all processes after each command: never on a machine that is no guest."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))
    with pytest.raises(RuntimeError, match="belongs in a guest"):
        agent._kill_all()


def test_pid1_refuses_to_run_on_the_host():
    """Started by mistake, init lays no mounts over this machine's."""
    with pytest.raises(SystemExit, match="the init of a guest"):
        runpy.run_path(str(LAB / "guest" / "pid1.py"), run_name="__main__")


@pytest.mark.parametrize(
    ("quoted", "plain"), [("/a/b", "/a/b"), ("/a%20b%3A%25", "/a b:%"), ("/%C3%A9", "/é")]
)
def test_percent_encoding_is_undone(quoted, plain):
    """Paths come back as the host had them."""
    from guest import pid1

    assert pid1.unquote(quoted) == plain
