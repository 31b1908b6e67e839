"""lab/run from its arguments to its exit code, with a made-up guest."""

from __future__ import annotations

import contextlib
import signal
from types import SimpleNamespace

import pytest
from labkit import cli, doctor, errors, kernels, options, rootfs
from labkit.guest import Command, Result
from labkit.topologies import TOPOLOGIES


class FakeGuest:
    """A guest whose commands end as the test says; what they print is their name."""

    release = "6.12.9"
    boot_seconds = 1.25

    def __init__(self, ends):
        """Take how each command will end, in order."""
        self.ends = list(ends)
        self.ran = []
        self.fetched = []

    def run(self, command, sink):
        """Print the command's name to both streams, and end."""
        self.ran.append(command)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        sink("out", command.argv[0].encode() + b"\xff")
        sink("err", b"!")
        return end

    def fetch(self, source, target):
        """Fetch, unless the name says that there is nothing."""
        if "none" in source:
            raise FileNotFoundError(f"cannot fetch {source}")
        self.fetched.append((source, target))


@pytest.fixture(autouse=True)
def _signals_as_found():
    """Handle signals as before: the command line takes them over for the process that it is."""
    found = {number: signal.getsignal(number) for number in cli._SIGNALS}
    yield
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.fixture
def lab(monkeypatch):
    """Return a function that runs the command line in a guest whose commands end as given."""

    def run(argv, *ends):
        guest = FakeGuest(ends)

        @contextlib.contextmanager
        def boot(topology, kernel, _project, console):
            guest.booted = SimpleNamespace(topology=topology, kernel=kernel, console=console)
            yield guest

        monkeypatch.setattr(cli, "boot", boot)
        monkeypatch.setattr(kernels, "require", lambda kernel: kernel)
        monkeypatch.setattr(cli, "_end_orderly_on_signals", lambda: None)
        return cli.main(argv), guest

    return run


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([Result(0, False)], 0),
        ([Result(5, False)], 5),
        ([Result(0, False), Result(5, False), Result(6, False)], 5),
        ([Result(137, True)], 137),
        ([errors.GuestDiedError("x")], 125),
        ([Result(1, False), errors.GuestHungError("x")], 124),
        ([errors.UnavailableError("x")], 126),
        ([errors.SignalledError(15)], 143),
        ([BrokenPipeError()], 141),
    ],
    ids=["ok", "code", "first", "timeout", "panic", "hang", "missing", "signal", "pipe"],
)
def test_every_end_has_its_exit_code(lab, monkeypatch, ends, code):
    """The first failing command's code is passed through; the lab's own ends have theirs."""
    monkeypatch.setattr(
        "sys.stdout",
        SimpleNamespace(buffer=SimpleNamespace(write=lambda _: None, flush=lambda: None)),
    )
    words = " ::: ".join(["cmd"] * len(ends)).split()
    assert lab(["-q", "--", *words], *ends)[0] == code


def test_streams_pass_unmodified(lab, capfdbinary):
    """What the command writes reaches the same stream, byte for byte; the lab speaks on stderr."""
    lab(["--", "one"], Result(0, False))
    out, err = capfdbinary.readouterr()
    assert out == b"one\xff"
    assert err == b"lab: Linux 6.12.9, 4node: booted in 1.2 s\n!"


def test_quiet_says_nothing(lab, capfdbinary):
    """With -q only the command speaks."""
    lab(["-q", "--", "one", ":::", "two"], Result(0, False), Result(0, False))
    assert capfdbinary.readouterr() == (b"one\xfftwo\xff", b"!!")


def test_a_time_out_is_named(lab, capfd):
    """137 could also be the command's own: the line on stderr tells."""
    lab(["-q", "--timeout", "2.5", "--", "one", "x"], Result(137, True))
    assert "lab: killed after 2.5 s: one x\n" in capfd.readouterr().err


def test_files_are_fetched_at_the_end(lab, tmp_path):
    """Files come back even if a command failed, and do not change its code."""
    pair = f"/tmp/j={tmp_path}/j"
    code, guest = lab(["--fetch", pair, "--", "one"], Result(3, False))
    assert (code, guest.fetched) == (3, [("/tmp/j", tmp_path / "j")])


def test_a_file_that_cannot_be_fetched_is_a_failure(lab, tmp_path):
    """Success without the file that was asked for is none."""
    code, _ = lab(["--fetch", f"/none={tmp_path}/j", "--", "one"], Result(0, False))
    assert code == 1


def test_options_reach_the_boot(lab, monkeypatch):
    """Kernel, topology and the way to the root are what was asked for."""
    monkeypatch.setattr(rootfs, "preferred", lambda: "9p")
    argv = ["--kernel", "6.1", "--topology", "tiny", "--console", "/c", "--", "one"]
    _, guest = lab(argv, Result(0, False))
    assert guest.booted.kernel.name == "6.1-9p"
    assert guest.booted.topology is TOPOLOGIES["tiny"]
    assert str(guest.booted.console) == "/c"


def test_commands_are_separated_and_have_options_of_their_own():
    """What stands before `--` is the default for each command, what follows `:::` its own."""
    words = ["a", "--", "b", ":::", "--uid", "5", "--env", "X=2", "--timeout=9", "c", "--uid", "7"]
    assert options.split_commands(words, uid=1, env={"X": "1", "Y": "1"}) == [
        Command(("a", "--", "b"), 1, 600.0, {"X": "1", "Y": "1"}),
        Command(("c", "--uid", "7"), 5, 9.0, {"X": "2", "Y": "1"}),
    ]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "no command"),
        (["--"], "no command"),
        (["--", "a", ":::"], "a command is missing"),
        (["--", "--bogus", "1", "a"], "--bogus is no option of a command"),
        (["--", "--uid", "x", "a"], "'x' is not a user id"),
        (["--timeout", "-1", "--", "a"], "not a number of seconds"),
        (["--timeout", "nan", "--", "a"], "not a number of seconds"),
        (["--env", "A", "--", "a"], "not of the form NAME=VALUE"),
        (["--fetch", "x=/y", "--", "a"], "not of the form /GUEST/PATH=HOSTPATH"),
        (["--fetch", "/x=/no/such/y", "--", "a"], "no directory /no/such"),
        (["--topology", "huge", "--", "a"], "invalid choice"),
    ],
)
def test_wrong_usage_is_refused_before_the_boot(argv, complaint, capsys):
    """A mistake in the arguments costs no boot: exit code 2 and what is wrong."""
    with pytest.raises(SystemExit) as raised:
        options.parse(argv)
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_fits_80_columns(capsys, monkeypatch):
    """Help is readable in the narrowest terminal, and names every exit code."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as raised:
        options.parse(["--help"])
    text = capsys.readouterr().out
    assert raised.value.code == 0
    assert max(len(line) for line in text.splitlines()) <= 80
    assert all(str(code) in text for code in (124, 125, 126, 137))


def test_topologies_are_listed(capsys):
    """Each machine has its line."""
    assert cli.main(["topologies"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TOPOLOGIES)


def check(name, found, *, needed):
    """Return a finding of the doctor's."""
    return doctor.Check(name, found, "get it", needed=needed)


def test_the_doctor_tells_missing_from_absent(monkeypatch, capsys):
    """What is needed and not there decides; what is merely not there does not."""
    checks = [check("a", "/a", needed=True), check("b", None, needed=False)]
    monkeypatch.setattr(doctor, "examine", lambda: checks)
    assert cli.main(["doctor"]) == 0
    checks.append(check("c", None, needed=True))
    assert cli.main(["doctor"]) == 126
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[-4:-1]] == ["ok", "absent", "missing"]
    assert out[-1].startswith("The lab cannot run here")


def test_the_doctor_needs_the_kernel_for_the_way_that_is_taken(monkeypatch):
    """Which kernel is needed depends on how the root is reached."""
    monkeypatch.setattr(rootfs, "preferred", lambda: "9p")
    needed = [check.name for check in doctor.examine() if check.needed]
    assert needed == ["qemu-system-x86_64", "kernel 6.12-9p"]
