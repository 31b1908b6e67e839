"""Which answers may be better the next time, and how long to wait for that.

A page is busy for a while (I/O, reclaim, compaction), or another CPU works on it: -EBUSY, -EAGAIN,
and since Linux 4.17 no status at all. A shared page (-EACCES), one that is not there (-ENOENT,
-EFAULT) or is locked (-EPERM) is as it is, and asking again costs without helping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import UNWRITTEN, Errno

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from movepages.placement.options import Options

_PASSING = np.array([UNWRITTEN, -Errno.EBUSY, -Errno.EAGAIN], dtype=np.int32)
_LONGEST_S = 0.1


def passing(answer: NDArray[np.int32], to: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell of which pages that are not where they should be that may change, bool[n]."""
    elsewhere = (answer >= 0) & (answer != to)
    may_change: NDArray[np.bool_] = elsewhere | np.isin(answer, _PASSING)
    return may_change


def pauses(options: Options) -> Iterator[float]:
    """Go through the seconds to wait before each further round."""
    for number in range(options.most_tries - 1):
        yield min(options.backoff_s * 2**number, _LONGEST_S)
