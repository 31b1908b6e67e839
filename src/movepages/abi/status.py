"""What a page's status and a call's errno mean, why they come, and what a person can do.

Statuses stand in move_pages(2)'s `status` array, one for each page: a node number, or a negative
errno. The same errno as the return value of a call says something else, so there are two tables.
Sources: the 2006 patch, move_pages(2), migrate_pages(2), mbind(2), mm/migrate.c of Linux 6.12.
"""

from dataclasses import dataclass

from movepages.abi.errno import Errno

UNWRITTEN = -(2**31)
"""Sentinel that fills a status array before a call: neither a node nor an errno."""


@dataclass(frozen=True, slots=True)
class PageStatus:
    """A status of one page: `code` is the negative errno, or UNWRITTEN."""

    code: int
    name: str
    meaning: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CallErrorMeaning:
    """An errno that a whole call returned: `code` is the negative errno."""

    code: int
    name: str
    call: str
    meaning: str
    remedy: str


def _status(errno: Errno, meaning: str, cause: str, remedy: str) -> PageStatus:
    return PageStatus(-errno, errno.name, meaning, cause, remedy)


PAGE_STATUSES: dict[int, PageStatus] = {
    status.code: status
    for status in (
        _status(
            Errno.ENOENT,
            "page not present",
            "The page was never touched, is swapped out, or its file page is not mapped.",
            "Nothing to move. Touch the page first if it should be placed.",
        ),
        _status(
            Errno.EACCES,
            "page shared with another mapping",
            "The page is mapped more than once, by other processes or twice by this one.",
            "Move it for all its users with --shared (MPOL_MF_MOVE_ALL, needs CAP_SYS_NICE).",
        ),
        _status(
            Errno.EPERM,
            "page locked in memory",
            "Kernels before 2.6.18 did not move mlocked pages. Later ones do.",
            "Unlock the page, or use a newer kernel.",
        ),
        _status(
            Errno.EBUSY,
            "page busy",
            "It could not be isolated: under reclaim or compaction, not on an LRU list (vDSO), or "
            "named twice in one call, as when two addresses of one huge page are given.",
            "Ask where it is now; try again if it is not where it should be.",
        ),
        _status(
            Errno.EFAULT,
            "no movable page here",
            "No mapping contains the address, or the zero page or device memory backs it. Linux "
            "4.3 to 6.11 also answer so for memory that was never touched.",
            "Check the address against the mappings; write to the page if it was only read.",
        ),
        _status(
            Errno.ENOMEM,
            "no memory on the target node",
            "The target node has too little free memory.",
            "Choose another node, or free memory on this one.",
        ),
        _status(
            Errno.EIO,
            "page could not be written back",
            "The page is dirty, its file system cannot migrate it, and writing it failed. Only "
            "kernels before 4.17 say so for a page.",
            "Look in the kernel log for errors of the device.",
        ),
        _status(
            Errno.EINVAL,
            "dirty page cannot be moved",
            "Its file system can neither migrate nor write back the page. Only kernels before "
            "4.17 say so for a page.",
            "None from outside: the page stays until the file system cleans it.",
        ),
        _status(
            Errno.EAGAIN,
            "page stayed in use through all attempts",
            "The page is pinned or under I/O. Only kernels before 4.17 say so for a page; later "
            "ones leave its status unwritten.",
            "Try again when the I/O is over.",
        ),
        PageStatus(
            UNWRITTEN,
            "UNWRITTEN",
            "page not moved, and the kernel gave no status",
            "The page, or another one in its batch, is pinned (I/O in flight, RDMA, io_uring, "
            "vfio) or cannot be migrated; or the call stopped before it.",
            "Ask where it is now; try again when the I/O is over.",
        ),
    )
}
"""Negative status to its description. Codes of zero and more are nodes."""


def status_name(code: int) -> str:
    """Name a status: `node 3` for 3, `ENOENT` for -2, `errno 999` for one that is not known."""
    if code >= 0:
        return f"node {code}"
    if code == UNWRITTEN:
        return "UNWRITTEN"
    try:
        return Errno(-code).name
    except ValueError:
        return f"errno {-code}"


def _call(errno: Errno, call: str, meaning: str, remedy: str) -> CallErrorMeaning:
    return CallErrorMeaning(-errno, errno.name, call, meaning, remedy)


_MOVE, _MIGRATE, _POLICY, _HOME = (
    "move_pages",
    "migrate_pages",
    "mbind, set_mempolicy, get_mempolicy",
    "set_mempolicy_home_node",
)

CALL_ERRORS: tuple[CallErrorMeaning, ...] = (
    _call(
        Errno.EPERM,
        _MOVE,
        "not permitted: the process is another user's or not dumpable, or MPOL_MF_MOVE_ALL was "
        "given without CAP_SYS_NICE, or a container's system call filter refuses the call",
        "run as the owner of the process or as root; leave out --shared; in a container allow the "
        "call (CAP_SYS_NICE, or a seccomp profile that permits it)",
    ),
    _call(
        Errno.EACCES,
        _MOVE,
        "a target node lies outside the cpuset of the process",
        "choose nodes from its Mems_allowed_list, or widen cpuset.mems of its cgroup",
    ),
    _call(
        Errno.ENODEV,
        _MOVE,
        "a target node does not exist, is offline or has no memory",
        "choose a node that `movepages nodes` lists with memory",
    ),
    _call(Errno.ESRCH, _MOVE, "there is no such process", "check the pid; it may have ended"),
    _call(
        Errno.EINVAL,
        _MOVE,
        "unknown flags, or the process has no memory of its own (kernel thread, zombie)",
        "use MOVE or MOVE_ALL only, and name a process in user space",
    ),
    _call(
        Errno.EFAULT,
        _MOVE,
        "an array passed to the call ends early or cannot be read or written",
        "check the lengths of the arrays; statuses written so far stay written",
    ),
    _call(
        Errno.ENOMEM,
        _MOVE,
        "a target node ran full; some pages may have moved, with no status written",
        "ask again where the pages are; choose another node or free memory on this one",
    ),
    _call(
        Errno.ENOENT,
        _MOVE,
        "nothing needed to move (only kernels before 2.6.28 say so)",
        "none needed",
    ),
    _call(Errno.E2BIG, _MOVE, "too many pages in one call (before 2.6.29)", "use smaller batches"),
    _call(
        Errno.ENOSYS,
        _MOVE,
        "this kernel has no NUMA or no page migration, or a filter hides the call",
        "use a kernel with CONFIG_NUMA and CONFIG_MIGRATION, or loosen the filter",
    ),
    _call(
        Errno.EPERM,
        _MIGRATE,
        "not permitted: another user's process, or target nodes outside its cpuset without "
        "CAP_SYS_NICE, or a container's filter refuses the call",
        "run as the owner of the process or as root",
    ),
    _call(
        Errno.EINVAL,
        _MIGRATE,
        "no target node is usable: it does not exist, has no memory, or lies outside the caller's "
        "cpuset; or the process has no memory of its own",
        "choose nodes that `movepages nodes` lists with memory",
    ),
    _call(Errno.ESRCH, _MIGRATE, "there is no such process", "check the pid; it may have ended"),
    _call(
        Errno.ENOMEM,
        _MIGRATE,
        "a target node ran full; some pages may have moved",
        "choose another node or free memory on this one",
    ),
    _call(
        Errno.EINVAL,
        _POLICY,
        "mode, flags and nodes do not fit together, no given node is usable, or the range does not "
        "start at a page",
        "bind and interleave need nodes with memory inside the cpuset; default and local take none",
    ),
    _call(
        Errno.ENOMEM,
        _POLICY,
        "the kernel has no memory for the policy, or no mapping can be divided any further",
        "free memory, or raise vm.max_map_count",
    ),
    _call(
        Errno.EFAULT,
        _POLICY,
        "the range has a hole, or a pointer cannot be accessed",
        "give a range that is mapped from end to end",
    ),
    _call(
        Errno.EIO,
        _POLICY,
        "MPOL_MF_STRICT was given and a page is not where the policy wants it",
        "ask where the pages are; shared, pinned pages and full nodes are the usual reasons",
    ),
    _call(
        Errno.EPERM,
        _POLICY,
        "MPOL_MF_MOVE_ALL needs CAP_SYS_NICE, or a container's filter refuses the call",
        "leave out MOVE_ALL, or run as root",
    ),
    _call(
        Errno.EINVAL,
        _HOME,
        "the home node is offline, flags were given, or the range does not start at a page",
        "choose an online node, and a range of whole pages",
    ),
    _call(
        Errno.EOPNOTSUPP,
        _HOME,
        "the range's policy is not bind or preferred-many",
        "set such a policy with mbind first",
    ),
    _call(
        Errno.ENOENT,
        _HOME,
        "the range has no policy of its own, or a hole",
        "set a policy with mbind first",
    ),
)
"""What an errno means as the return value of a whole call, call by call."""
