"""On which CPUs the caller runs: sched_setaffinity(2).

The kernel takes the CPUs that the cpuset allows out of those asked for, and says -EINVAL only where
none is left (__sched_setaffinity in kernel/sched). So what came of it has to be looked at.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from movepages.errors import call_error

if TYPE_CHECKING:
    from collections.abc import Iterable


def run_on(cpus: Iterable[int]) -> frozenset[int]:
    """Have the calling thread run on some CPUs only. Return those of them that its cpuset allows.

    None, and nothing has changed, where it allows none of them. Raises CallError.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return frozenset()
        raise call_error(
            -(error.errno or 0),
            "sched_setaffinity",
            detail=f"the CPUs cannot be chosen ({error.strerror}); leave the choice of CPUs out",
        ) from error
    return frozenset(os.sched_getaffinity(0))
