"""The contract with the kernel as numbers and names; it imports nothing of ours.

Flags and modes, system call numbers per architecture, statuses and errnos with their meaning and
remedy, layouts of binary files. Numbers only: what they do is in the rooms above.
"""

from movepages.abi.errno import Errno
from movepages.abi.flags import (
    POLICY_FLAG_WORDS,
    POLICY_WORDS,
    Capability,
    Mode,
    ModeFlag,
    MoveFlag,
    PolicyQuery,
)
from movepages.abi.limits import MAX_NUMNODES, QUERY_CHUNK_PAGES
from movepages.abi.status import (
    CALL_ERRORS,
    PAGE_STATUSES,
    UNWRITTEN,
    CallErrorMeaning,
    PageStatus,
    status_name,
)
from movepages.abi.syscalls import CALLS, SYSCALL_NUMBERS, numbers_for

__all__ = [
    "CALLS",
    "CALL_ERRORS",
    "MAX_NUMNODES",
    "PAGE_STATUSES",
    "POLICY_FLAG_WORDS",
    "POLICY_WORDS",
    "QUERY_CHUNK_PAGES",
    "SYSCALL_NUMBERS",
    "UNWRITTEN",
    "CallErrorMeaning",
    "Capability",
    "Errno",
    "Mode",
    "ModeFlag",
    "MoveFlag",
    "PageStatus",
    "PolicyQuery",
    "numbers_for",
    "status_name",
]
