"""The host's side of the conversation, with the agent's side played by the test."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from labkit import guest as guests
from labkit.children import anonymous_file
from labkit.errors import GuestDiedError, GuestHungError, UnavailableError
from labkit.guest import Command, Guest, tail
from labkit.protocol import Decoder, encode, pack


class Stage:
    """A Guest, the other ends of its lines, and its console."""

    def __init__(self):
        """Connect everything; nothing has been said."""
        self.line, self.agent = socket.socketpair()
        self.ours, self.monitor = socket.socketpair()
        self.console = anonymous_file("console")
        self.log = anonymous_file("log")
        fds = (self.line.fileno(), self.ours.fileno(), self.console, self.log)
        self.guest = Guest(Path("/p"), {"A": "1"}, *fds)

    def say(self, *messages):
        """Say something as the agent."""
        self.agent.sendall(b"".join(encode(message) for message in messages))

    def heard(self):
        """Return what the agent was told."""
        return Decoder().feed(self.agent.recv(1 << 16))

    def close(self):
        """Close everything."""
        for end in (self.line, self.agent, self.ours, self.monitor):
            end.close()
        os.close(self.console)
        os.close(self.log)


@pytest.fixture
def stage():
    """Return a guest that has been booted."""
    stage = Stage()
    stage.say({"hello": "6.12.1"})
    stage.guest.wait_until_ready()
    yield stage
    stage.close()


@pytest.fixture
def impatient(monkeypatch):
    """Make the host give up at once."""
    for name in ("BOOT_SECONDS", "SILENCE_SECONDS", "GRACE_SECONDS", "_PANIC_SECONDS"):
        monkeypatch.setattr(guests, name, 0.01)


def test_a_command_is_told_in_full(stage):
    """The agent hears the command, the directory, the environment, the user and the time."""
    stage.say({"rc": 0, "timeout": False})
    stage.guest.run(Command(("ls", "-l"), uid=7, timeout=3, env={"B": "2"}), lambda *_: None)
    assert stage.guest.release == "6.12.1"
    assert stage.heard() == [
        {
            "run": ["ls", "-l"],
            "cwd": "/p",
            "env": {"A": "1", "B": "2"},
            "uid": 7,
            "timeout": 3,
        }
    ]


def test_output_arrives_by_stream_and_in_order(stage):
    """Bytes reach the sink as they came, with the stream they were written to."""
    stage.say({"out": pack(b"a\xff")}, {"beat": 1}, {"err": pack(b"b")}, {"rc": 3, "timeout": True})
    seen = []
    result = stage.guest.run(Command(("x",)), lambda *piece: seen.append(piece))
    assert seen == [("out", b"a\xff"), ("err", b"b")]
    assert (result.code, result.timed_out) == (3, True)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("timeout", [0.01, 0], ids=["limited", "unlimited"])
def test_a_silent_agent_hangs(stage, timeout):
    """Whoever says nothing in time hangs; the guest is made to panic for its trace."""
    os.write(stage.console, b"last words\n")
    with pytest.raises(GuestHungError, match=r"stopped answering\nlast words") as raised:
        stage.guest.run(Command(("x",), timeout=timeout), lambda *_: None)
    assert raised.value.code == 124
    assert stage.monitor.recv(100) == b"nmi\n"


@pytest.mark.usefixtures("impatient")
def test_a_boot_that_takes_too_long_hangs():
    """A guest that never says hello did not boot."""
    stage = Stage()
    with pytest.raises(GuestHungError, match="did not boot"):
        stage.guest.wait_until_ready()
    stage.close()


@pytest.mark.parametrize(
    ("console", "what"),
    [(b"Kernel panic - not syncing\n", "the guest panicked"), (b"", "the guest went away")],
)
def test_the_end_of_qemu_is_the_end_of_the_guest(stage, console, what):
    """When QEMU goes, a panic on the console tells why."""
    os.write(stage.console, console)
    stage.agent.close()
    with pytest.raises(GuestDiedError, match=what) as raised:
        stage.guest.run(Command(("x",)), lambda *_: None)
    assert raised.value.code == 125


def test_a_qemu_that_does_not_start_is_no_panic():
    """Before the boot, a complaint of QEMU means that the lab cannot run here."""
    stage = Stage()
    os.write(stage.log, b"qemu-system-x86_64: -M pc: no such machine\n")
    stage.agent.close()
    with pytest.raises(UnavailableError, match=r"did not start: .*no such machine") as raised:
        stage.guest.wait_until_ready()
    assert raised.value.code == 126
    stage.close()


def test_a_file_is_put_together(stage, tmp_path):
    """Pieces become the file, under its name only when it is whole."""
    stage.say({"data": pack(b"one")}, {"data": pack(b"two")}, {"end": 6})
    stage.guest.fetch("/tmp/x", tmp_path / "y")
    assert [p.name for p in tmp_path.iterdir()] == ["y"]
    assert (tmp_path / "y").read_bytes() == b"onetwo"


def test_a_missing_file_leaves_the_old_one(stage, tmp_path):
    """A file that cannot be had replaces nothing and leaves nothing."""
    (tmp_path / "y").write_text("old")
    stage.say({"missing": "No such file or directory"})
    with pytest.raises(FileNotFoundError, match="cannot fetch /tmp/x: No such file"):
        stage.guest.fetch("/tmp/x", tmp_path / "y")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_the_tail_begins_before_the_panic():
    """Of a console, the panic and a few lines before it are shown; else the last lines."""
    lines = [str(number) for number in range(100)]
    assert tail(lines) == lines[60:]
    lines[20] = "Kernel panic - not syncing"
    assert tail(lines) == lines[15:]
