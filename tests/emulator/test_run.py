from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

BARE = (sys.executable, str(Path(__file__).parent / "bare.py"))
PARENT = "import os; print(os.getppid(), flush=True)"
"""Python that says which process is the supervisor: the parent of the program."""
WAIT = "import signal; signal.pause()"
FOREVER = "for _ in iter(int, 1):"
EXITS = "for code in $(seq 0 255); do (exit $code); test $? = $code || exit 1; done; exit 9"


def python(*lines):
    """Return a command line that runs Python code."""
    return (sys.executable, "-S", "-c", "\n".join(lines))


@pytest.mark.parametrize("code", [0, 1, 2, 5, 70, 126, 127, 128, 129, 137, 254, 255])
def test_exit_code_passes_through(bare, code):
    """The emulator ends with the program's own exit code, those with a meaning of ours included."""
    done = bare("sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, "")


def test_exit_codes_within_the_tree(bare):
    """Children get all codes from 0 to 255 of their own children, 256 forks in one run."""
    assert bare("sh", "-c", EXITS).returncode == 9


@pytest.mark.parametrize(
    "name", ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "PIPE", "ALRM", "TERM", "SEGV", "RTMAX"]
)
def test_death_by_signal_passes_through(bare, name):
    """A program that a signal kills makes the emulator die by the same signal, silently."""
    number = getattr(signal, f"SIG{name}")
    default = f"if {number:d} != 9: signal.signal({number:d}, signal.SIG_DFL)"
    done = bare(*python("import os, signal", default, f"os.kill(os.getpid(), {number:d})", WAIT))
    assert (done.returncode, done.stderr) == (-number, "")


def test_signals_sent_to_the_front_reach_the_program(start):
    """TERM, USR1 and the like, sent to the process that the user started, are the program's."""
    code = python(
        "import signal, sys",
        "numbers = signal.valid_signals() - {signal.SIGCHLD}",
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)",
        "print('ready', flush=True)",
        f"{FOREVER} print(int(signal.sigwait(numbers)), flush=True)",
    )
    program = start(*BARE, "--", *code)
    assert program.says() == "ready"
    wanted = ("USR1", "HUP", "INT", "QUIT", "TERM", "WINCH", "PWR", "RTMIN", "RTMAX")
    for number in (getattr(signal, f"SIG{name}") for name in wanted):
        program.process.send_signal(number)
        assert program.says() == str(int(number))


def test_alarm_set_before_reaches_the_program():
    """An alarm survives an execve, so one that was set before the emulator ends the program."""
    code = (
        f"import os, signal; signal.setitimer(signal.ITIMER_REAL, 1); os.execv({BARE[0]!r}, "
        f"[*{BARE!r}, '--', {BARE[0]!r}, '-S', '-c', {WAIT!r}])"
    )
    done = subprocess.run([BARE[0], "-c", code], check=False, timeout=30, capture_output=True)
    assert done.returncode == -signal.SIGALRM


def test_front_stops_and_goes_on_with_the_program(start):
    """A program that stops itself stops the front, as a shell expects; SIGCONT wakes both."""
    code = python(
        "import os, signal",
        "print('stopping', flush=True)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "print('going on', flush=True)",
    )
    program = start(*BARE, "--", *code)
    assert program.says() == "stopping"
    pid = program.process.pid
    stopped = os.waitid(os.P_PID, pid, os.WSTOPPED)
    assert stopped.si_status == signal.SIGSTOP
    os.kill(pid, signal.SIGCONT)
    assert program.says() == "going on"
    assert program.ended() == (0, "")


def test_supervisor_killed(start):
    """When the supervisor is killed the whole tree ends, and one sentence says why."""
    code = python(
        "import os, signal",
        "for number in range(3):",
        "    if os.fork() == 0:",
        "        if number: os.setsid()",
        "        signal.pause()",
        PARENT,
        WAIT,
    )
    program = start(*BARE, "--", *code)
    os.kill(int(program.says()), signal.SIGKILL)
    code, said = program.ended()
    assert program.gone()
    assert code == 1
    assert "supervisor was ended (killed)" in said
    assert "4 processes of" in said
    assert said.count("\n") == 1


def test_supervisor_killed_under_fire(start):
    """Killed while 8 processes make calls, the supervisor leaves none of them behind."""
    code = python(
        "import os",
        "parent = os.getppid()",
        "out, into = os.pipe()",
        "for _ in range(3): os.fork()",
        "os.write(into, b'x')",
        "if parent == os.getppid():",
        "    for _ in range(8): os.read(out, 1)",
        "    print(parent, flush=True)",
        f"{FOREVER} os.close(os.open('/dev/null', os.O_RDONLY))",
    )
    program = start(*BARE, "--", *code)
    os.kill(int(program.says()), signal.SIGKILL)
    code, said = program.ended()
    assert program.gone()
    assert code == 1
    assert "supervisor was ended" in said


def test_front_killed(start):
    """When the process that the user started is killed the tree ends, daemons included."""
    code = python(
        "import os, signal",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0: signal.pause()",
        "    os._exit(0)",
        "os.wait()",
        PARENT,
        WAIT,
    )
    program = start(*BARE, "--", *code)
    program.says()
    program.process.kill()
    assert program.gone()
    code, said = program.ended()
    assert code == -signal.SIGKILL
    assert "was killed, so it is ended as well" in said


def test_front_killed_with_nobody_to_tell(start):
    """The tree ends although standard error leads nowhere any more."""
    program = start(*BARE, "--", *python("print('ready', flush=True)", WAIT))
    assert program.says() == "ready"
    program.process.stderr.close()
    program.process.kill()
    assert program.gone()


@pytest.mark.parametrize("doing", [WAIT, f"{FOREVER} os.close(os.open('/dev/null', 0))"])
def test_program_killed(start, doing):
    """Killed at rest or in the middle of calls, the program leaves nothing behind."""
    program = start(*BARE, "--", *python("import os; print(os.getpid(), flush=True)", doing))
    os.kill(int(program.says()), signal.SIGKILL)
    assert program.ended() == (-signal.SIGKILL, "")
    assert program.gone()


def test_child_that_stays_behind(start, tmp_path):
    """A daemon is served after the program has ended, and the report waits for it."""
    report = tmp_path / "report.json"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = python(
        "import os",
        "if os.fork():",
        "    print('program', flush=True)",
        "    os._exit(6)",
        "os.setsid()",
        "nowhere = os.open('/dev/null', os.O_RDWR)",
        "for fd in (1, 2): os.dup2(nowhere, fd)",
        f"open({str(fifo)!r}).read()",
        f"open({str(tmp_path / 'daemon')!r}, 'w').write(open('/proc/self/comm').read())",
    )
    program = start(*BARE, "--report", str(report), "--", *code)
    assert program.says() == "program"
    assert program.ended() == (6, "")
    assert not report.exists()
    with fifo.open("w"):
        pass
    assert program.gone()
    assert (tmp_path / "daemon").read_text().startswith("python")


def test_output_pipe_closes_with_the_program(bare):
    """The emulator holds no end of the program's pipes: a reader sees the end of its output."""
    code = python(
        "import os, sys",
        "out, into = os.pipe()",
        "if os.fork() == 0:",
        "    os.read(out, 1)",
        "    os._exit(0)",
        "os.close(1)",
        "os.write(into, b'x')",
        "os.wait()",
    )
    done = bare("sh", "-c", '("$@"; echo $? >&2) | cat', "-", *code)
    assert done.stderr == "0\n"


def test_machine_that_cannot_be_made(bare):
    """An error while the machine is made is the user's, by its own kind, and nothing runs."""
    done = bare("sh", "-c", "echo ran", options=("--broken",))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "TopologyError: no node has memory\n"


def test_handlers_that_raise_do_not_hurt_the_program(bare):
    """A program whose every open meets a defect of ours works, and is told of it at the end."""
    done = bare("cat", "/proc/self/comm", options=("--raise",))
    assert (done.returncode, done.stdout) == (0, "cat\n")
    assert "calls were answered by guess" in done.stderr
    assert "ValueError: on purpose" in done.stderr
    assert done.stderr.count("\n") == 1


def test_defect_is_shown_on_demand(bare):
    """MOVEPAGES_DEBUG=1 shows where a handler failed."""
    environment = {**os.environ, "MOVEPAGES_DEBUG": "1"}
    assert "in failing" in bare("true", options=("--raise",), env=environment).stderr


def test_report(bare, tmp_path):
    """The report has the calls by name, and what the machine tells."""
    path = tmp_path / "report.json"
    assert bare("true", options=("--report", str(path))).returncode == 0
    report = json.loads(path.read_text())
    assert report["calls"]["execve"] == 1
    assert report["mounted"] is True


def test_pin(bare):
    """With --pin the program may run on one CPU, the highest that it was given."""
    allowed = os.sched_getaffinity(0)
    code = python("import os; print(*os.sched_getaffinity(0))")
    assert bare(*code, options=("--pin",)).stdout.split() == [str(max(allowed))]
    assert bare(*code).stdout.split() == [str(cpu) for cpu in sorted(allowed)]


def test_nested(bare):
    """An emulator within an emulator is refused with a sentence; its own program does not run."""
    done = bare(*BARE, "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there can be one only" in done.stderr


def test_threads_and_forks_end_quietly(bare):
    """8 processes with 4 threads each, all opening files, end without a complaint."""
    code = python(
        "import os, threading",
        "def work():",
        "    for _ in range(20): os.close(os.open('/dev/null', 0))",
        "for _ in range(3): os.fork()",
        "threads = [threading.Thread(target=work) for _ in range(4)]",
        "for t in threads: t.start()",
        "for t in threads: t.join()",
        "try:",
        "    while True: os.wait()",
        "except ChildProcessError: pass",
    )
    done = bare(*code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("who", [False, True], ids=["root", "nobody"])
def test_shell_pipeline(bare, who):
    """A pipeline of programs gives what it gives without the emulator, for root and for nobody."""
    done = bare("sh", "-c", "seq 1000 | grep 7 | wc -l", as_nobody=who)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "271", "")


def test_supervisor_killed_without_privilege(start):
    """Ending the tree needs no root."""
    program = start(*BARE, "--as-nobody", "--", "sh", "-c", "sleep 300 & echo $PPID; wait")
    os.kill(int(program.says()), signal.SIGKILL)
    code, said = program.ended()
    assert program.gone()
    assert (code, "of sh w" in said) == (1, True)


def test_signals_to_the_group_reach_the_program_once(start):
    """What a shell sends to a job (`kill %1`) comes once; what only the front got is passed on."""
    code = python(
        "import signal",
        "numbers = signal.valid_signals() - {signal.SIGCHLD}",
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)",
        "print('ready', flush=True)",
        f"{FOREVER} print(int(signal.sigwait(numbers)), flush=True)",
    )
    program = start(*BARE, "--", *code, process_group=0)
    assert program.says() == "ready"
    for _ in range(3):
        os.killpg(program.process.pid, signal.SIGUSR1)
        assert program.says() == str(int(signal.SIGUSR1))
        program.process.send_signal(signal.SIGUSR2)
        assert program.says() == str(int(signal.SIGUSR2))


def test_signals_to_the_group_where_the_program_has_its_own(start):
    """A program that has left the process group gets what was sent to it, by way of the front."""
    code = python(
        "import os, signal",
        "numbers = signal.valid_signals() - {signal.SIGCHLD}",
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)",
        "os.setpgid(0, 0)",
        "print('ready', flush=True)",
        f"{FOREVER} print(int(signal.sigwait(numbers)), flush=True)",
    )
    program = start(*BARE, "--", *code, process_group=0)
    assert program.says() == "ready"
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.killpg(program.process.pid, number)
        assert program.says() == str(int(number))


def test_place_for_generated_files_that_cannot_be_written(bare, tmp_path):
    """A TMPDIR that is not there is a sentence with the remedy, and nothing runs."""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "none")}
    done = bare("sh", "-c", "echo ran", env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be made (No such file or directory); set TMPDIR" in done.stderr


def test_place_for_generated_files_is_left_empty(bare, tmp_path):
    """In the TMPDIR that the user names nothing is left behind."""
    assert bare("true", env={**os.environ, "TMPDIR": str(tmp_path)}).returncode == 0
    assert list(tmp_path.iterdir()) == []
