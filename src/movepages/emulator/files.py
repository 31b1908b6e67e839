"""Opens of files that tell of nodes: the program gets a descriptor of what we say instead.

Status and numa_maps of processes and the counters of nodes are made anew at each open, in memory.
The tree of /sys is mounted; where it cannot be, opens in it get descriptors of the generated files.
Then only opens are answered, not stat(2) or access(2).

A real file of /proc is made anew when it is read again from its beginning; ours is not.

Rights are those of the program: the real file is opened by us, who may have more of them, so
`access.may_read` asks first what the kernel would have asked the program. Whatever is unusual (to
open for writing, openat2(2) with restrictions on the way) is left to the kernel, and so is each
error that the program would have got from it.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from movepages.abi import Errno
from movepages.emulator.access import may_read
from movepages.emulator.paths import (
    AT_FDCWD,
    AttributeFile,
    CounterFile,
    PathView,
    ProcFile,
    SysFile,
)
from movepages.emulator.procfs import edit_node_file, edit_status
from movepages.emulator.replies import Continue, Descriptor, Value
from movepages.emulator.sysfs import NODES
from movepages.errors import CallError
from movepages.linux.process_memory import read_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movepages.emulator.paths import Recognised
    from movepages.emulator.procfs import NodePool
    from movepages.emulator.replies import Handler, Reply
    from movepages.linux.seccomp import Notification
    from movepages.nodeset import NodeSet

_PATH_MAX = 4096
_FIRST_READ_BYTES = 256
_OPEN_HOW = struct.Struct("=QQQ")
_RESOLVE_NO_MAGICLINKS = 0x02  # include/uapi/linux/openat2.h

_FAKED_NAME = re.compile(
    rb"(?:.*/)?(?:status|numa_maps|meminfo|numastat|vmstat|(?:nr|free|surplus)_hugepages|node\d+)",
    re.DOTALL,
)
_MAYBE_SYS = re.compile(rb"[^/]|/+sys/|.*/\.\./", re.DOTALL)
_WRITING = os.O_ACCMODE | os.O_TRUNC
_UNUSUAL = _WRITING | os.O_CREAT | os.O_PATH | os.O_DIRECTORY | os.O_DIRECT
_READABLE = 0o444
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class FileSource(Protocol):
    """What the files are to say. Process and thread ids are the supervisor's own."""

    def pid_of(self, tid: int, number: int) -> int | None:
        """Return whom a task means by a number; None for nobody. Pid namespaces differ."""
        ...

    def mems_allowed(self, tid: int) -> NodeSet:
        """Return the nodes that a task may have memory on."""
        ...

    def numa_maps(self, tid: int, text: bytes) -> bytes:
        """Return the numa_maps of a task, made of the real one: see `procfs.edit_numa_maps`."""
        ...

    def used_pages(self, node: int) -> int:
        """Return how many pages of a node are in use by programs."""
        ...

    def pool(self, node: int) -> NodePool | None:
        """Return what has become of a node's pool of huge pages; None for nothing."""
        ...

    def attribute(self, name: str) -> bytes | None:
        """Return what an attribute says now, by its path; None for what its file says."""
        ...

    def open_to_write(self, name: str, file: Path) -> None:
        """Take note that an attribute is about to be opened to write; `file` is the tree's."""
        ...


class Files:
    """Answers open, openat and openat2."""

    def __init__(
        self,
        source: FileSource,
        directory: Path,
        possible: int,
        *,
        mounted: bool,
    ) -> None:
        """Take where `sysfs.write_tree` wrote, and one more than the highest node possible."""
        self._source, self._directory, self._possible = source, directory, possible
        self._tree = None if mounted else os.fsencode(directory)

    def handlers(self) -> Mapping[str, Handler]:
        """Return who answers which call."""
        return {"open": self.open, "openat": self.openat, "openat2": self.openat2}

    def open(self, call: Notification) -> Reply:
        """Answer open(2)."""
        path, flags = call.args[:2]
        return self._open(call.tid, AT_FDCWD, path, _unsigned(flags))

    def openat(self, call: Notification) -> Reply:
        """Answer openat(2)."""
        dirfd, path, flags = call.args[:3]
        return self._open(call.tid, _signed(dirfd), path, _unsigned(flags))

    def openat2(self, call: Notification) -> Reply:
        """Answer openat2(2)."""
        dirfd, path, how, size_bytes = call.args[:4]
        try:
            asked = read_memory(call.tid, how, _OPEN_HOW.size)
        except CallError:  # it has ended, or hides its memory
            return Continue()
        if min(size_bytes, len(asked)) < _OPEN_HOW.size:
            return Continue()
        flags, _, resolve = _OPEN_HOW.unpack(asked)
        if resolve & ~_RESOLVE_NO_MAGICLINKS:
            return Continue()
        return self._open(call.tid, _signed(dirfd), path, flags)

    def _open(self, tid: int, dirfd: int, address: int, flags: int) -> Reply:
        path = _read_path(tid, address)
        if path is None or not self._may_be_ours(path):
            return Continue()
        found = self._find(tid, dirfd, path, flags)
        try:
            match found:
                case ProcFile():
                    return self._open_proc(tid, found, flags)
                case CounterFile():
                    return self._open_counters(found, flags)
                case AttributeFile(name):
                    return self._open_attribute(tid, name, flags)
                case SysFile(place):
                    return _open_sys(place + b"/" * path.endswith(b"/"), flags)
        except OSError:  # it went while we looked at it, or the kernel refuses it: so be it
            pass
        return Continue()

    def _may_be_ours(self, path: bytes) -> bool:
        """Tell what nearly all paths fail, without a look at the file system."""
        if _FAKED_NAME.fullmatch(path):
            return True
        return self._tree is not None and _MAYBE_SYS.match(path) is not None

    def _find(self, tid: int, dirfd: int, path: bytes, flags: int) -> Recognised | None:
        view = PathView(tid, self._tree)
        absolute = view.absolute(dirfd, path)
        if absolute is None or not self._may_be_ours(absolute):
            return None
        walked = view.resolve(absolute, follow=not flags & os.O_NOFOLLOW)
        return None if walked is None else view.recognise(walked)

    def _open_proc(self, tid: int, file: ProcFile, flags: int) -> Reply:
        if flags & _UNUSUAL:
            return Continue()
        own = _Own.read(tid) if file.process is None or file.thread is None else None
        whose = self._whose(tid, file, own)
        if whose is None:
            return Continue()
        real = _place(tid, file, own)
        if file.name == "status":
            known = own is not None and own.tid == whose and own.in_our_namespace
            text = own.status if own and known and os.access(real, os.R_OK) else _read(real)
            text = edit_status(text, self._source.mems_allowed(whose), self._possible)
            return _descriptor(text, file.name, flags)
        if not may_read(tid, whose):
            return Value(-Errno.EACCES)
        if not (text := _read(real)):  # a kernel thread
            return Continue()
        return _descriptor(self._source.numa_maps(whose, text), file.name, flags)

    def _whose(self, tid: int, file: ProcFile, own: _Own | None) -> int | None:
        """Return our number of the task that a file is about."""
        number = file.thread if file.of_thread else file.process
        if number is not None:
            return self._source.pid_of(tid, number)
        return tid if file.of_thread or own is None else own.tgid

    def _open_counters(self, file: CounterFile, flags: int) -> Reply:
        path = f"{self._directory}/sys/{NODES}/node{file.node}/{file.name}"
        if flags & _UNUSUAL:
            return Continue() if self._tree is None else _open_sys(os.fsencode(path), flags)
        used, pool = self._source.used_pages(file.node), self._source.pool(file.node)
        return _descriptor(edit_node_file(file.name, _read(path), used, pool), file.name, flags)

    def _open_attribute(self, tid: int, name: str, flags: int) -> Reply:
        if self._tree is None and not Path(f"/proc/{tid}/root{name}").exists():
            return Continue()
        text = None if flags & _UNUSUAL else self._source.attribute(name)
        if text is not None:
            return _descriptor(text, Path(name).name, flags)
        file = Path(f"{self._directory}{name}")
        if self._tree is not None:
            return _open_sys(os.fsencode(file), flags)
        if flags & _WRITING:
            self._source.open_to_write(name, file)
        return Continue()


def _open_sys(path: bytes, flags: int) -> Reply:
    """Open a file or directory that only we can see. It cannot be written, whoever asks."""
    # A descriptor of O_PATH cannot be given away (fget() in kernel/seccomp.c); one to read does.
    plain = flags & ~(_WRITING | os.O_CREAT | os.O_EXCL | os.O_PATH)
    try:
        fd = os.open(path, plain | os.O_CLOEXEC)
    except FileNotFoundError:
        return Value(-(Errno.EACCES if flags & os.O_CREAT else Errno.ENOENT))
    except OSError as error:
        return Value(-(error.errno or Errno.EIO))
    if flags & _WRITING:
        os.close(fd)
        return Value(-Errno.EACCES)
    return Descriptor(fd, cloexec=bool(flags & os.O_CLOEXEC))


def _descriptor(text: bytes, name: str, flags: int) -> Descriptor:
    """Return a descriptor to read that text from, which nobody can change."""
    made = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(made, rest) :]
        os.fchmod(made, _READABLE)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        # Opened anew, to read only and at its beginning.
        fd = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
    return Descriptor(fd, cloexec=bool(flags & os.O_CLOEXEC))


class _Own(NamedTuple):
    """What the task that asks is: its status, our numbers, and those in its pid namespace."""

    status: bytes
    tid: int
    tgid: int
    inner_tid: int
    inner_tgid: int
    in_our_namespace: bool

    @classmethod
    def read(cls, tid: int) -> _Own:
        status = _read(f"/proc/{tid}/status")
        (tgid,) = _numbers(status, b"Tgid") or (tid,)
        pids = _numbers(status, b"NSpid") or (tid,)  # kernels may lack pid namespaces
        tgids = _numbers(status, b"NStgid") or (tgid,)
        return cls(status, tid, tgid, pids[-1], tgids[-1], in_our_namespace=len(pids) == 1)


def _numbers(status: bytes, key: bytes) -> tuple[int, ...]:
    """Return the numbers on a line of a status file."""
    _, found, rest = status.partition(b"\n%s:\t" % key)
    return tuple(map(int, rest[: rest.index(b"\n")].split())) if found else ()


def _place(tid: int, file: ProcFile, own: _Own | None) -> str:
    """Return where the real file is, seen from the task's root: there its numbers are valid."""
    process = file.process if own is None or file.process is not None else own.inner_tgid
    thread = file.thread if own is None or file.thread is not None else own.inner_tid
    task = f"/task/{thread}" if file.of_thread else ""
    its_root = f"/proc/{tid}/root"
    return f"{its_root}/proc/{process}{task}/{file.name}"


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _read_path(tid: int, address: int) -> bytes | None:
    """Return a path argument; None where the kernel will refuse it, or we cannot see it."""
    try:
        for size_bytes in (_FIRST_READ_BYTES, _PATH_MAX):
            path, end, _ = read_memory(tid, address, size_bytes).partition(b"\0")
            if end:
                return path
    except CallError:  # it has ended, or hides its memory
        return None
    return None


def _unsigned(argument: int) -> int:
    return argument & 0xFFFFFFFF


def _signed(argument: int) -> int:
    """Return an int argument of a system call, whose upper half may hold anything."""
    return (_unsigned(argument) ^ 0x80000000) - 0x80000000
