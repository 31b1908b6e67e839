from __future__ import annotations

import errno

import pytest

from movepages.abi import Errno


def test_numbers_are_those_of_errno_base_h():
    """The numbers are those of include/uapi/asm-generic/errno-base.h and errno.h."""
    assert {error.name: int(error) for error in Errno} == {
        "EPERM": 1,
        "ENOENT": 2,
        "ESRCH": 3,
        "EINTR": 4,
        "EIO": 5,
        "E2BIG": 7,
        "EAGAIN": 11,
        "ENOMEM": 12,
        "EACCES": 13,
        "EFAULT": 14,
        "EBUSY": 16,
        "ENODEV": 19,
        "EINVAL": 22,
        "ENOSYS": 38,
        "EOPNOTSUPP": 95,
    }


@pytest.mark.host
@pytest.mark.parametrize("error", list(Errno))
def test_numbers_are_those_of_this_machine(error):
    """On Linux the standard library says the same."""
    assert getattr(errno, error.name) == error
