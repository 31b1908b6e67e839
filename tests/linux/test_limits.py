from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from movepages.errors import MalformedError, NoSuchProcessError
from movepages.linux import limits
from movepages.linux.limits import Limit

# Of Linux 6.18, shortened.
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max locked memory         8388608              unlimited            bytes
Max nice priority         0                    20
Max realtime timeout      18446744073709551614 unlimited            us
"""


@pytest.mark.parametrize(
    ("read", "path"),
    [
        (limits.read_numa_balancing, "proc/sys/kernel/numa_balancing"),
        (limits.read_thp_size_bytes, "sys/kernel/mm/transparent_hugepage/hpage_pmd_size"),
        (limits.read_ptrace_scope, "proc/sys/kernel/yama/ptrace_scope"),
        (limits.read_perf_event_paranoid, "proc/sys/kernel/perf_event_paranoid"),
        (limits.read_zone_reclaim_mode, "proc/sys/vm/zone_reclaim_mode"),
        (limits.read_overcommit_hugepages, "proc/sys/vm/nr_overcommit_hugepages"),
    ],
)
def test_numbers_that_a_kernel_may_lack(put, tmp_path, read, path):
    """A setting is its number, None where the kernel lacks it, and refused where it is garbage."""
    assert read(tmp_path) is None
    assert read(put(path, "2\n")) == 2
    with pytest.raises(MalformedError, match=path):
        read(put(path, "two\n"))


@pytest.mark.parametrize(("text", "enabled"), [("true\n", True), ("false\n", False)])
def test_demotion(put, text, enabled):
    """Demotion is on or off."""
    root = put("sys/kernel/mm/numa/demotion_enabled", text)
    assert limits.read_demotion_enabled(root) is enabled


def test_demotion_that_is_not_told(put, tmp_path):
    """A kernel without tiers does not say; garbage is refused."""
    assert limits.read_demotion_enabled(tmp_path) is None
    with pytest.raises(MalformedError, match="neither true nor false"):
        limits.read_demotion_enabled(put("sys/kernel/mm/numa/demotion_enabled", "1\n"))


@pytest.mark.parametrize("mode", ["always", "madvise", "never"])
def test_thp_mode_is_the_one_in_brackets(put, mode):
    """Of the modes that are printed, the one in brackets is chosen."""
    text = "always madvise never\n".replace(mode, f"[{mode}]")
    assert limits.read_thp_mode(put("sys/kernel/mm/transparent_hugepage/enabled", text)) == mode


def test_thp_mode_that_is_not_told(put, tmp_path):
    """A kernel without THP has no mode; a line without brackets is refused."""
    assert limits.read_thp_mode(tmp_path) is None
    with pytest.raises(MalformedError, match="marks none"):
        limits.read_thp_mode(put("sys/kernel/mm/transparent_hugepage/enabled", "always never\n"))


def test_swap_is_in_bytes(put):
    """The size of swap is read from meminfo and turned into bytes; its line must be there."""
    root = put("proc/meminfo", "MemTotal:  4024524 kB\nSwapTotal:       2048 kB\n")
    assert limits.read_swap_bytes(root) == 2 << 20
    with pytest.raises(MalformedError, match=r"line 1: SwapTotal: .* is not a number"):
        limits.read_swap_bytes(put("proc/meminfo", "SwapTotal: much\n"))
    with pytest.raises(MalformedError, match="SwapTotal: the line is missing"):
        limits.read_swap_bytes(put("proc/meminfo", "MemTotal:  4024524 kB\n"))


def test_process_limits_by_column(put_process):
    """Names hold blanks, units may be missing: the columns have fixed widths."""
    read = limits.read_process_limits(7, put_process(limits=LIMITS))
    assert read == {
        "Max cpu time": Limit(None, None),
        "Max locked memory": Limit(8 << 20, None),
        "Max nice priority": Limit(0, 20),
        "Max realtime timeout": Limit(2**64 - 2, None),
    }


def test_malformed_limit_is_named(put_process):
    """A limit that is neither a number nor unlimited is named with its line."""
    text = LIMITS.replace("8388608  ", "boundless")
    with pytest.raises(MalformedError, match=r"proc/7/limits, line 3: Max locked memory"):
        limits.read_process_limits(7, put_process(limits=text))


@pytest.mark.host
def test_own_limits_are_those_of_getrlimit(no_pid):
    """What the file says of this process is what getrlimit(2) says; nobody has no limits."""
    read = limits.read_process_limits(os.getpid())
    for name, number in (
        ("Max locked memory", resource.RLIMIT_MEMLOCK),
        ("Max open files", resource.RLIMIT_NOFILE),
        ("Max stack size", resource.RLIMIT_STACK),
    ):
        soft, hard = (
            None if limit == resource.RLIM_INFINITY else limit
            for limit in resource.getrlimit(number)
        )
        assert read[name] == Limit(soft, hard)
    with pytest.raises(NoSuchProcessError):
        limits.read_process_limits(no_pid)


@pytest.mark.host
def test_own_machine():
    """Settings of this machine are within what the kernel allows them to be."""
    assert limits.read_pid_max() > os.getpid()
    assert limits.read_numa_balancing() in {None, 0, 1, 2, 3}
    assert limits.read_demotion_enabled() in {None, True, False}
    assert limits.read_thp_mode() in {None, "always", "madvise", "never"}
    assert limits.read_ptrace_scope() in {None, 0, 1, 2, 3}
    swaps = Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    assert limits.read_swap_bytes() == sum(int(line.split()[2]) for line in swaps) * 1024
