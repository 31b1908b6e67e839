"""What every subcommand is handed: the machine it asks, and where its report goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from movepages.abi import Errno
from movepages.errors import InvalidCallError, UnsupportedError

if TYPE_CHECKING:
    from movepages.machine import Machine
    from movepages.report.output import Output
    from movepages.values import TaskInfo


class Session:
    """The machine and the output of one run of `movepages`. Both are made when first needed."""

    def __init__(self, machine: Machine | None = None, output: Output | None = None) -> None:
        """Take another machine than this one, and another output than standard output."""
        self._machine = machine
        self._output = output

    @property
    def machine(self) -> Machine:
        """The machine that is asked. Raises UnsupportedError where this is not Linux."""
        if self._machine is None:
            self._machine = _this_machine()
        return self._machine

    @property
    def output(self) -> Output:
        """Where the report goes."""
        if self._output is None:
            from movepages.report.output import Output

            self._output = Output.to(sys.stdout)
        return self._output

    def task(self, pid: int) -> TaskInfo:
        """Return who a process is. Raises InvalidCallError for a kernel thread, CallError."""
        return with_memory(self.machine.task(pid))


def with_memory(task: TaskInfo) -> TaskInfo:
    """Return a process that has memory of its own. Raises InvalidCallError for a kernel thread."""
    if task.kernel_thread:
        raise InvalidCallError(
            Errno.EINVAL,
            f"process {task.pid} ({task.command}) is a kernel thread and has no memory of its own; "
            "name a process in user space",
            call="task",
            pid=task.pid,
        )
    return task


def _this_machine() -> Machine:
    if sys.platform != "linux":
        raise UnsupportedError("only Linux has NUMA nodes to ask; this command needs it")
    from movepages.linux.machine import LinuxMachine

    return LinuxMachine()
