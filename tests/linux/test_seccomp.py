from __future__ import annotations

import array
import ctypes
import errno
import os
import platform
import signal
import struct

import pytest

from movepages.abi import seccomp as abi
from movepages.emulator.launch import fork_task
from movepages.errors import CallError
from movepages.linux import libc, syscalls
from movepages.linux.seccomp import Filter, Notification, Rule, install, why_not_installed

pytestmark = pytest.mark.emulator

GET_MEMPOLICY = syscalls._NUMBERS.get("get_mempolicy", -1)
ECHO = Filter.assemble([Rule(GET_MEMPOLICY)], platform.machine())


def ask(*args):
    """Make the call that the filter notifies of; the arguments are ours to choose."""
    syscall = ctypes.CDLL(None, use_errno=True)["syscall"]
    syscall.restype = ctypes.c_long
    ret = syscall(GET_MEMPOLICY, *map(ctypes.c_ulong, args))
    return ret if ret != -1 else -ctypes.get_errno()


@pytest.fixture
def child():
    """Return a function that runs a body under the filter, and its results come over a pipe.

    The body's return value is written as a 64-bit number. Gives the listener, a function that reads
    the result, and the pid.
    """
    running = []

    def started(body):
        out, into = os.pipe()
        launch = fork_task(lambda: os.write(into, struct.pack("q", body())))
        os.close(into)
        listener = launch.install(ECHO)
        launch.start()
        running.append((launch.pid, listener, out))

        def result():
            return struct.unpack("q", os.read(out, 8))[0]

        return listener, result, launch.pid

    yield started
    for pid, listener, out in running:
        listener.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(out)


@pytest.mark.parametrize("ret", [0, 1, 4242, 2**31, 2**62, -1, -12, -4095])
def test_answer_is_what_the_call_returns(child, ret):
    """A value is returned as it is, and a negative errno as an error, to the last errno."""
    listener, result, _ = child(lambda: ask(0, 0, 0, 0, 0))
    listener.answer(listener.receive().id, ret)
    assert result() == ret


def test_notification_tells_of_the_call(child):
    """Thread, number, architecture and all arguments arrive, 64 bits wide."""
    sent = (1, 2**63, 2**64 - 1, 0x123456789ABCDEF, 5)
    listener, _, pid = child(lambda: ask(*sent))
    notification = listener.receive()
    assert isinstance(notification, Notification)
    assert notification.tid == pid
    assert notification.nr == GET_MEMPOLICY
    assert notification.arch == abi.AUDIT_ARCH[platform.machine()]
    assert notification.args[:5] == sent


def test_let_through_makes_the_real_call(child):
    """The kernel carries the call out: it fails with its own errno for flags that are none."""
    listener, result, _ = child(lambda: ask(0, 0, 0, 0, 1 << 20))
    listener.let_through(listener.receive().id)
    assert result() == -errno.EINVAL


@pytest.mark.parametrize("cloexec", [True, False])
def test_give_opens_a_descriptor_in_the_caller(child, cloexec):
    """The call returns a number that is a copy of our descriptor, closed on execve as asked."""

    def body():
        fd = ask(0, 0, 0, 0, 0)
        return (os.fstat(fd).st_ino << 1) | (not os.get_inheritable(fd))

    listener, result, _ = child(body)
    fd = os.memfd_create("given")
    listener.give(listener.receive().id, fd, cloexec=cloexec)
    assert result() == (os.fstat(fd).st_ino << 1) | cloexec
    os.close(fd)


def test_give_to_a_caller_with_no_number_free(child):
    """The call fails with EMFILE, as the caller's own open would, and nothing is raised here."""

    def body():
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        return ask(0, 0, 0, 0, 0)

    listener, result, _ = child(body)
    listener.give(listener.receive().id, 0, cloexec=True)
    assert result() == -errno.EMFILE


def test_give_a_descriptor_that_is_none(child):
    """A descriptor that is not open here gives the caller EBADF rather than a hang."""
    listener, result, _ = child(lambda: ask(0, 0, 0, 0, 0))
    listener.give(listener.receive().id, 9999, cloexec=True)
    assert result() == -errno.EBADF


def test_caller_that_dies_in_mid_call(child):
    """A killed caller makes its id invalid, and every kind of answer to it harmless."""
    listener, _, pid = child(lambda: ask(0, 0, 0, 0, 0))
    notification = listener.receive()
    assert listener.is_valid(notification.id)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not listener.is_valid(notification.id)
    listener.answer(notification.id, 0)
    listener.let_through(notification.id)
    listener.give(notification.id, 0, cloexec=True)
    assert listener.receive() is None


def test_second_answer_is_harmless(child):
    """The first answer counts; a second one is dropped."""
    listener, result, _ = child(lambda: ask(0, 0, 0, 0, 0))
    notification = listener.receive()
    listener.answer(notification.id, 1)
    listener.answer(notification.id, 2)
    assert result() == 1


def test_end_of_all_tasks(child):
    """`receive` returns None when the last task under the filter has gone, children included."""

    def body():
        if os.fork() == 0:
            ask(0, 0, 0, 0, 0)
            os._exit(0)
        return 0

    listener, result, _ = child(body)
    assert result() == 0  # the first task is about to end, its child waits for an answer
    notification = listener.receive()
    listener.answer(notification.id, 0)
    assert listener.receive() is None
    assert listener.receive() is None


def test_closed_listener_gives_enosys(child):
    """Once the listener is closed, what it would be told of is ENOSYS; closing twice is fine."""

    def body():
        ask(0, 0, 0, 0, 0)
        return ask(0, 0, 0, 0, 0)

    listener, result, _ = child(body)
    listener.receive()
    listener.close()
    listener.close()
    assert result() == -errno.ENOSYS


def test_nested_listener_is_refused(child):
    """A task under a listener cannot have another: EBUSY, with a sentence that says so."""

    def body():
        try:
            install(ECHO)
        except CallError as error:
            return -error.errno if "there can be one only" in str(error) else 0
        return 1

    _, result, _ = child(body)
    assert result() == -errno.EBUSY


def test_program_that_the_kernel_refuses():
    """A program without instructions is refused, and the caller goes on without a filter."""
    with pytest.raises(CallError) as caught:
        install(Filter(b""))
    assert caught.value.errno == errno.EINVAL


def test_unprivileged_task_gets_no_new_privs():
    """A task without CAP_SYS_ADMIN can install a filter, at the price of set-uid programs."""
    out, into = os.pipe()

    def body():
        status = dict(
            line.split(":\t", 1)
            for line in open("/proc/self/status").read().splitlines()  # noqa: SIM115, PTH123
        )
        os.write(into, status["NoNewPrivs"].encode())

    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        launch = fork_task(body)
        listener = launch.install(ECHO)
        launch.start()
        assert listener.receive() is None
        os._exit(0)
    os.close(into)
    assert os.read(out, 10) == b"1"
    os.close(out)
    assert os.waitpid(pid, 0)[1] == 0


def test_signals_do_not_break_a_call_that_is_being_answered(child):
    """A caller with a handler without SA_RESTART keeps waiting: no EINTR (WAIT_KILLABLE_RECV)."""

    def body():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        return ask(0, 0, 0, 0, 0)

    listener, result, pid = child(body)
    notification = listener.receive()
    for _ in range(100):
        os.kill(pid, signal.SIGUSR1)
    listener.answer(notification.id, 7)
    assert result() == 7


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EBUSY, "start this one outside"),
        (errno.ENOSYS, "use Linux 5.14"),
        (errno.EINVAL, "use Linux 5.14"),
        (errno.EPERM, "seccomp=unconfined"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_refusals_say_what_to_do(number, remedy):
    """Each errno of seccomp(2) has its sentence."""
    assert remedy in why_not_installed(number)


def test_layouts_are_those_of_the_kernel():
    """SECCOMP_GET_NOTIF_SIZES gives the sizes of the kernel's own structures."""
    sizes = array.array("H", [0, 0, 0])
    address, _ = sizes.buffer_info()
    assert libc.seccomp(3, 0, address) == 0
    # The third is struct seccomp_data, which stands within the notification.
    assert sizes.tolist() == [abi.NOTIF.size, abi.NOTIF_RESP.size, 64]
    sizes_of_ioctls = [
        number >> 16 & 0x3FFF
        for number in (abi.NOTIF_RECV, abi.NOTIF_SEND, abi.NOTIF_ID_VALID, abi.NOTIF_ADDFD_IOCTL)
    ]
    layouts = (abi.NOTIF, abi.NOTIF_RESP, abi.NOTIF_ID, abi.NOTIF_ADDFD)
    assert sizes_of_ioctls == [layout.size for layout in layouts]
