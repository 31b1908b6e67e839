from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from movepages.emulator.filter import Files, Precision, build_filter
from movepages.emulator.launch import fork_task, furnish, mount_privately
from movepages.errors import UnsupportedError

pytestmark = pytest.mark.emulator

FILTER = build_filter(platform.machine(), Precision.LAZY, Files.NONE)
NODE_DIRECTORY = "/sys/devices/system/node"
MOUNTED = ("sh", "-c", f"cat {NODE_DIRECTORY}/online")


@pytest.fixture
def tree(tmp_path_factory):
    """Return a directory that says that nodes 0 to 6 are online, readable by everyone."""
    directory = tmp_path_factory.mktemp("node")
    (directory / "online").write_text("0-6\n")
    for path in (directory, *directory.parents):
        if path.owner() == "root" and path.is_relative_to(Path("/tmp")):
            path.chmod(0o755 if path != Path("/tmp") else 0o1777)
    return directory


def ended(launch):
    """Return the exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1])


def test_abandoned_child_ends():
    """A child that is never prepared ends when its parent lets go of it."""
    launch = fork_task(os.abort)
    launch.abandon()
    assert ended(launch) == 126


def test_prepared_child_that_is_abandoned_never_runs():
    """A child under the filter that is not started ends without running its body."""
    launch = fork_task(os.abort)
    launch.install(FILTER).close()
    launch.abandon()
    assert ended(launch) == 126


def test_child_that_is_killed_before_it_is_prepared():
    """A child that has died is named in a sentence, and no one waits for it."""
    launch = fork_task(lambda: None)
    os.kill(launch.pid, signal.SIGKILL)
    ended(launch)
    with pytest.raises(UnsupportedError, match="start it again"):
        launch.install(FILTER)


def test_body_that_raises(capfd):
    """An exception in the child is a sentence and an exit code, and never the parent's."""
    launch = fork_task({}.popitem)
    listener = launch.install(FILTER)
    launch.start()
    assert listener.receive() is None
    listener.close()
    assert ended(launch) == 126
    assert "KeyError" in capfd.readouterr().err


def test_mount_is_seen_by_the_program_alone(bare, tree):
    """A directory bound over /sys/devices/system/node is there inside, and is not outside."""
    outside = Path(NODE_DIRECTORY, "online").read_text()
    done = bare(*MOUNTED, options=("--mount", str(tree), NODE_DIRECTORY))
    assert (done.returncode, done.stdout) == (0, "0-6\n")
    assert Path(NODE_DIRECTORY, "online").read_text() == outside


def test_mount_without_privilege(bare, tree):
    """An ordinary user gets the same through a namespace of his own, and keeps his user id."""
    done = bare(
        "sh", "-c", f"cat {NODE_DIRECTORY}/online; id -u",
        options=("--mount", str(tree), NODE_DIRECTORY),
        as_nobody=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0-6\n65534\n")


def test_a_target_that_does_not_exist_is_left_out(bare, tree):
    """Kernels without an interface have no directory to mount over; the others are mounted."""
    options = ("--mount", str(tree), "/sys/no/such", "--mount", str(tree), NODE_DIRECTORY)
    done = bare(*MOUNTED, options=options)
    assert (done.returncode, done.stdout) == (0, "0-6\n")


def in_namespaces_without_rights(code):
    """Run code where no further namespace may be made, return what it prints."""
    limit = "echo 0 > /proc/sys/user/max_{}_namespaces; "
    shell = (
        "sh",
        "-c",
        limit.format("mnt") + limit.format("user") + 'exec "$@"',
        "-",
        sys.executable,
        "-c",
        code,
    )
    command = ("unshare", "--user", "--map-root-user", *shell)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_mounts_refused_are_said_with_the_remedy():
    """Where namespaces are forbidden nothing is mounted, and a sentence names the sysctl."""
    code = (
        "from movepages.emulator.launch import mount_privately; "
        "print(mount_privately([('/sys', '/sys')]))"
    )
    assert "raise user.max_user_namespaces" in in_namespaces_without_rights(code)


def test_program_runs_though_nothing_is_mounted(tree):
    """Without a namespace the program still runs under the filter, with no_new_privs at worst."""
    bare = Path(__file__).parent / "bare.py"
    code = (
        f"import runpy, sys; sys.argv = ['bare.py', '--mount', {str(tree)!r}, "
        f"'{NODE_DIRECTORY}', '--', 'grep', 'Seccomp:', '/proc/self/status']; "
        f"runpy.run_path({str(bare)!r}, run_name='__main__')"
    )
    assert in_namespaces_without_rights(code).split() == ["Seccomp:", "2"]


@pytest.mark.parametrize("mounts", [True, False], ids=["mounted", "no such source"])
def test_files_are_made_by_the_child(tmp_path, mounts):
    """What it writes is mounted for it alone, and in the directory only where it cannot be."""

    def write(directory):
        (directory / "online").write_text("0-6\n")
        for name in ("devices", "made") if mounts else ("missing/..",):
            (directory / name.partition("/")[0]).mkdir()
        return [(directory, NODE_DIRECTORY)] if mounts else [(directory, "/proc/1/mem/x")]

    out, into = os.pipe()
    online = Path(NODE_DIRECTORY, "online")
    launch = fork_task(
        lambda: os.write(into, online.read_bytes()), furnish=partial(furnish, tmp_path, write)
    )
    problem = launch.furnished()
    assert bool(problem) is not mounts
    assert bool(list(tmp_path.iterdir())) is not mounts
    listener = launch.install(FILTER)
    launch.start()
    assert listener.receive() is None
    listener.close()
    assert ended(launch) == 0
    assert os.read(out, 64) == (b"0-6\n" if mounts else online.read_bytes())


def test_files_that_cannot_be_made():
    """A child that cannot write its files says why, and never runs."""

    def fails():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    launch = fork_task(os.abort, furnish=fails)
    with pytest.raises(UnsupportedError, match="No space left on device; see that there is room"):
        launch.furnished()
    assert ended(launch) == 126


def test_many_mounts(tmp_path):
    """A machine of a thousand mounts, far more than a packet holds, is furnished."""
    places = [tmp_path / f"{number:0200}" for number in range(1000)]
    for place in places:
        place.mkdir()
    (tmp_path / "source").mkdir()
    launch = fork_task(
        lambda: None,
        furnish=lambda: mount_privately((tmp_path / "source", place) for place in places),
    )
    assert launch.furnished() == ""
    launch.abandon()
    assert ended(launch) == 126


def test_nothing_to_mount_needs_no_namespace():
    """Without mounts the caller's namespace is left as it is."""
    before = Path("/proc/self/ns/mnt").readlink()
    assert mount_privately([]) == ""
    assert Path("/proc/self/ns/mnt").readlink() == before


def test_command_that_does_not_exist(bare):
    """127 and a sentence, as from a shell."""
    done = bare("no-such-command")
    assert done.returncode == 127
    assert (
        done.stderr == "movepages: there is no command no-such-command; check its name and PATH\n"
    )


def test_path_that_does_not_exist(bare):
    """127 and a sentence for a path as well."""
    done = bare("/no/such/file")
    assert done.returncode == 127
    assert done.stderr.count("\n") == 1


def test_interpreter_that_does_not_exist(bare, tmp_path):
    """A script whose #! line names nothing is not found either, and the sentence says why."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = bare(str(script))
    assert done.returncode == 127
    assert "no interpreter that it names" in done.stderr


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_cannot_be_executed(bare, tmp_path, kind):
    """126 and a sentence for a file without the x bit and for a directory."""
    path = tmp_path / "thing"
    path.touch() if kind == "file" else path.mkdir()
    done = bare(str(path))
    assert done.returncode == 126
    assert done.stderr == f"movepages: {path} cannot be executed: Permission denied\n"


def test_script_without_interpreter_line(bare, tmp_path):
    """A script without #! is read by a shell, as execvp(3) does, with its arguments."""
    script = tmp_path / "script"
    script.write_text('echo "got $1"; exit 4\n')
    script.chmod(0o755)
    done = bare(str(script), "this")
    assert (done.returncode, done.stdout) == (4, "got this\n")


def test_static_binary(bare, tmp_path):
    """A program without a dynamic linker has its calls answered."""
    source, binary = tmp_path / "asks.c", tmp_path / "asks"
    source.write_text(
        "#include <unistd.h>\n#include <stdio.h>\n"
        f"int main(void) {{ long ret = syscall({_move_pages()}, 0, 0, 0, 0, 0, 0);\n"
        'printf("%ld\\n", ret); return ret != 0; }\n'
    )
    subprocess.run(["cc", "-static", "-o", binary, source], check=True, capture_output=True)
    assert b".interp" not in binary.read_bytes()
    done = bare(str(binary), options=("--raise",))
    assert (done.returncode, done.stdout) == (1, "-1\n")
    assert "answered by guess" in done.stderr
    assert bare(str(binary)).stdout == "0\n"


def _move_pages():
    from movepages.abi import numbers_for

    return numbers_for(platform.machine())["move_pages"]


def test_environment_and_arguments_arrive(bare):
    """Arguments with spaces and options, and the environment, come through unchanged."""
    done = bare(
        "sh", "-c", 'printf "%s|" "$@" "$THIS"', "-", "a b", "--nodes", "",
        env={**os.environ, "THIS": "that"},
    )  # fmt: skip
    assert done.stdout == "a b|--nodes||that|"


def test_signals_are_as_before(bare):
    """No signal is blocked or ignored that was not before: SIGPIPE, which Python ignores, ends."""
    done = bare("grep", "-E", "SigBlk|SigIgn", "/proc/self/status")
    native = subprocess.run(
        ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == native.stdout


def test_descriptors_are_as_before(bare):
    """The program has the descriptors it was given, and none of ours."""
    listing = ("sh", "-c", "ls /proc/$$/fd")
    with Path("/dev/null").open() as given:
        done = bare(*listing, pass_fds=(given.fileno(),))
        assert {int(name) for name in done.stdout.split()} == {0, 1, 2, given.fileno()}


def test_process_group_and_session_are_the_callers(bare):
    """The program is in the process group and session of whoever started the emulator."""
    done = bare("cat", "/proc/self/stat")
    group, session = done.stdout.rpartition(")")[2].split()[2:4]
    assert (int(group), int(session)) == (os.getpgid(0), os.getsid(0))


def test_set_uid_programs_keep_their_meaning_for_root(bare):
    """As root no_new_privs is not set, so that su and sudo work inside."""
    if os.geteuid():
        pytest.fail("this test runs as root")
    assert bare("grep", "NoNewPrivs", "/proc/self/status").stdout.split() == ["NoNewPrivs:", "0"]


def test_busybox_static_shell(bare):
    """A static shell starts children under the emulator, where there is one."""
    shell = shutil.which("busybox")
    command = (shell, "sh", "-c", "true; exit 5") if shell else ("sh", "-c", "true; exit 5")
    assert bare(*command).returncode == 5
