"""Every error that movepages raises.

    MovePagesError
    ├─ NodeSetError (ValueError)            a node list that cannot be understood or used
    ├─ SizeError (ValueError)               a size, rate or address that cannot be understood
    ├─ ArgumentError (ValueError)           arrays of the wrong kind, length or dtype
    ├─ TopologyError (ValueError)           a machine description that makes no sense
    ├─ MalformedError (ValueError)          a kernel file is not as documented: path, line, field
    ├─ UnsupportedError (RuntimeError)      this machine lacks what was asked for
    └─ CallError (OSError)                  a call failed: errno, call, pid, address, node, result
       ├─ NoSuchProcessError (ProcessLookupError)
       ├─ NotPermittedError (PermissionError)
       ├─ FilteredError (PermissionError)   a container's system call filter answered
       ├─ OutsideCpusetError (PermissionError)
       ├─ NoSuchNodeError (LookupError)
       ├─ InvalidCallError (ValueError)
       ├─ BadAddressError (ValueError)
       ├─ NodeFullError (MemoryError)
       ├─ MisplacedError                    STRICT, and a page is not where the policy wants it
       └─ NoSuchCallError                   the kernel, or a filter, does not have the call

Each says in one sentence what is wrong and what to do, and carries the facts as attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from movepages.abi import CALL_ERRORS, Errno, status_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from movepages.values import CallResult


class MovePagesError(Exception):
    """The base of all errors that movepages raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it with its facts, which the constructors want by name."""
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[MovePagesError], args: tuple[Any, ...]) -> MovePagesError:
    error = kind.__new__(kind)
    parent = OSError if isinstance(error, OSError) else Exception
    parent.__init__(error, *args)
    return error


class NodeSetError(MovePagesError, ValueError):
    """A node list cannot be understood, or names nodes that may not be used."""

    def __init__(self, message: str, *, text: str) -> None:
        """Keep the text that was refused."""
        super().__init__(message)
        self.text = text


class SizeError(MovePagesError, ValueError):
    """A size, rate or address cannot be understood."""

    def __init__(self, message: str, *, text: str) -> None:
        """Keep the text that was refused."""
        super().__init__(message)
        self.text = text


class ArgumentError(MovePagesError, ValueError):
    """An argument has the wrong kind, length, dtype or order."""


class TopologyError(MovePagesError, ValueError):
    """A machine description makes no sense."""


class MalformedError(MovePagesError, ValueError):
    """A kernel file is not as documented. `line` counts from 1, 0 when the file is one value."""

    def __init__(self, path: Path | str, line: int, field: str, problem: str) -> None:
        """Keep where it stands: the file, its line and the field."""
        where = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{where}: {field}: {problem}")
        self.path, self.line, self.field = path, line, field


class UnsupportedError(MovePagesError, RuntimeError):
    """This machine lacks an interface that was asked for."""


class CallError(MovePagesError, OSError):
    """A call failed; `result` holds what it had done by then, where it did something."""

    def __init__(
        self,
        errno: int,
        message: str,
        *,
        call: str,
        arguments: Mapping[str, Any] | None = None,
        pid: int | None = None,
        address: int | None = None,
        node: int | None = None,
        result: CallResult | None = None,
    ) -> None:
        """Keep the facts of the call."""
        super().__init__(int(errno), message)
        self.call = call
        self.arguments = dict(arguments or {})
        self.pid = pid
        self.address = address
        self.node = node
        self.result = result

    def __str__(self) -> str:
        """Say the sentence; the number stands in `errno`."""
        return str(self.strerror)


class NoSuchProcessError(CallError, ProcessLookupError):
    """The process does not exist, or ended while it was looked at."""


class NotPermittedError(CallError, PermissionError):
    """The caller lacks the right: another user's process, or MOVE_ALL without CAP_SYS_NICE."""


class FilteredError(CallError, PermissionError):
    """A system call filter (seccomp), as containers have, refuses the call to everyone in it."""


class OutsideCpusetError(CallError, PermissionError):
    """A target node lies outside the cpuset of the process; `node` names it where known."""


class NoSuchNodeError(CallError, LookupError):
    """A target node does not exist, is offline or has no memory; `node` names it where known."""


class InvalidCallError(CallError, ValueError):
    """The kernel calls the arguments invalid, or the process has no memory of its own."""


class BadAddressError(CallError, ValueError):
    """An array or a range cannot be accessed from end to end."""


class NodeFullError(CallError, MemoryError):
    """A target node ran full; pages may have moved all the same: see `result` and ask again."""


class MisplacedError(CallError):
    """MPOL_MF_STRICT was given and a page is not where the policy wants it."""


class NoSuchCallError(CallError):
    """The kernel does not have the call, or a filter hides it."""


_BY_ERRNO: dict[int, type[CallError]] = {
    Errno.ESRCH: NoSuchProcessError,
    Errno.EPERM: NotPermittedError,
    Errno.EACCES: OutsideCpusetError,
    Errno.ENODEV: NoSuchNodeError,
    Errno.EINVAL: InvalidCallError,
    Errno.EFAULT: BadAddressError,
    Errno.ENOMEM: NodeFullError,
    Errno.EIO: MisplacedError,
    Errno.ENOSYS: NoSuchCallError,
}


def call_error(
    ret: int,
    call: str,
    *,
    detail: str = "",
    pid: int | None = None,
    address: int | None = None,
    node: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    result: CallResult | None = None,
) -> CallError:
    """Build the error for a call's negative return; `detail` says more than the errno can."""
    message = f"{call}: {detail or _sentence(ret, call)}"
    return _BY_ERRNO.get(-ret, CallError)(
        -ret,
        message,
        call=call,
        arguments=arguments,
        pid=pid,
        address=address,
        node=node,
        result=result,
    )


def no_such_process(pid: int, call: str) -> NoSuchProcessError:
    """Build the error for a process that does not exist, or vanished while it was read."""
    return NoSuchProcessError(
        Errno.ESRCH,
        f"{call}: there is no process {pid}; check the pid, it may have ended",
        call=call,
        pid=pid,
    )


def _sentence(ret: int, call: str) -> str:
    for error in CALL_ERRORS:
        if error.code == ret and call in error.call.split(", "):
            return f"{error.meaning}; {error.remedy}"
    return f"the kernel answered {status_name(ret)}, which is not among its documented answers"
