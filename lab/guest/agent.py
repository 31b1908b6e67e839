"""The guest's agent: runs the commands that the host asks for, one after the other.

It forks and execs by hand: `subprocess` costs the guest half a second to import.
"""

# pathlib, like subprocess, is too dear to import here.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import os
import select
import signal
import sys
import time

from labkit.protocol import BEAT_SECONDS, CHUNK_BYTES, Decoder, Message, encode, pack

PORT_NAME = "lab.0"
NOT_FOUND = 127
_DRAIN_SECONDS = 2.0


def find_port(root: str = "/sys/class/virtio-ports") -> str:
    """Return the device of the host's port; no udev here makes a link by its name."""
    for device in sorted(os.listdir(root)):
        with open(f"{root}/{device}/name", encoding="ascii") as file:
            if file.read().strip() == PORT_NAME:
                return f"/dev/{device}"
    raise FileNotFoundError(f"no port named {PORT_NAME} in {root}")


class Port:
    """The line to the host."""

    def __init__(self, fd: int) -> None:
        """Take an open descriptor."""
        self._fd = fd
        self._decoder = Decoder()

    def send(self, message: Message) -> None:
        """Send one message, whole."""
        data = encode(message)
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> list[Message]:
        """Wait for the next messages; none means that the host has gone."""
        while True:
            data = os.read(self._fd, CHUNK_BYTES)
            if not data:
                return []
            if messages := self._decoder.feed(data):
                return messages


def serve() -> None:
    """Announce the guest, then carry out requests until the host goes."""
    port = Port(os.open(find_port(), os.O_RDWR | os.O_CLOEXEC))
    port.send({"hello": os.uname().release})
    while messages := port.receive():
        for message in messages:
            if "run" in message:
                port.send(run(port, message))
            else:
                fetch(port, message["fetch"])


def run(port: Port, request: Message) -> Message:
    """Run one command, pass its output on as it comes, return how it ended."""
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    child = os.fork()
    if child == 0:
        _become(request, out_end, err_end)
    os.close(out_end)
    os.close(err_end)
    pipes = {out: "out", err: "err"}
    overran = _follow(port, child, pipes, request["timeout"])
    status = os.waitpid(child, 0)[1]
    # Whatever the command left behind goes with it, in whatever session: the next command finds
    # a quiet machine. -1 is everything but init and this process.
    _kill_all()
    _drain(port, pipes)
    code = os.waitstatus_to_exitcode(status)
    return {"rc": code if code >= 0 else 128 - code, "timeout": overran}


def _become(request: Message, out: int, err: int) -> None:
    """Turn this process, just forked, into the command; never return."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("0")
        # Python ignores it, and a child would inherit that: `yes | head` must end.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(0o022)
        if request["uid"]:
            os.setgroups([])
            os.setgid(request["uid"])
            os.setuid(request["uid"])
        os.chdir(request["cwd"])
        os.execvpe(request["run"][0], request["run"], request["env"])  # noqa: S606 - as asked
    except OSError as problem:
        os.write(2, f"lab: {request['run'][0]}: {problem.strerror}\n".encode())
    except BaseException:  # noqa: BLE001 - a forked copy of the agent must never live on
        import traceback  # a tenth of a second, at every boot otherwise

        os.write(2, traceback.format_exc().encode())
    os._exit(NOT_FOUND)


def _follow(port: Port, child: int, pipes: dict[int, str], timeout: float) -> bool:
    """Pass output on until the command ends; kill it at its time-out and say whether it was."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    for fd in (ended, *pipes):
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout if timeout else float("inf")
    overran = False
    while True:
        left = max(0.0, deadline - time.monotonic())
        events = poll.poll(min(BEAT_SECONDS, left) * 1000)
        ready = [fd for fd, _ in events]
        for fd in ready:
            if fd in pipes and not _pass_on(port, fd, pipes[fd]):
                poll.unregister(fd)
        if ended in ready:
            os.close(ended)
            return overran
        if time.monotonic() >= deadline:
            overran, deadline = True, float("inf")
            _kill_all()
        elif not events:
            port.send({"beat": 1})


def _pass_on(port: Port, fd: int, stream: str) -> bool:
    """Send what a pipe holds; False at its end."""
    data = os.read(fd, CHUNK_BYTES)
    if data:
        port.send({stream: pack(data)})
    return bool(data)


def _drain(port: Port, pipes: dict[int, str]) -> None:
    """Send the rest of the output. All writers were killed: the end is near, but not waited for."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    for fd, stream in pipes.items():
        while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not _pass_on(port, fd, stream):
                break
        os.close(fd)


def _kill_all() -> None:
    """Kill every process but init and this one. Anywhere but in a guest, that would be grave."""
    with open("/proc/1/cmdline", "rb") as file:
        if b"guest/pid1.py" not in file.read():
            raise RuntimeError("the agent belongs in a guest of the lab")
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:  # there was none; contextlib would be one more import
        return


def fetch(port: Port, path: str) -> None:
    """Send a file, piece by piece."""
    size = 0
    try:
        with open(path, "rb") as file:
            while data := file.read(CHUNK_BYTES):
                size += len(data)
                port.send({"data": pack(data)})
    except OSError as problem:
        port.send({"missing": problem.strerror or str(problem)})
        return
    port.send({"end": size})


if __name__ == "__main__":
    sys.exit("the agent is started by pid1")
