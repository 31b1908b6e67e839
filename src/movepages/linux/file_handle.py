"""What the kernel itself calls a file: name_to_handle_at(2), the inode number and its generation.

An inode number is used again as soon as a file is gone (ext4 gives it to the next one), its handle
is not. Nothing is opened, and no right to the file is needed but to search its path.

What can fail: there is no such path, the file system cannot tell (EOPNOTSUPP: some before Linux
6.6), or a container forbids the call (EPERM). Source: do_sys_name_to_handle in fs/fhandle.c.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from movepages.abi import Errno
from movepages.linux import libc

if TYPE_CHECKING:
    from pathlib import Path

_MAX_HANDLE_BYTES = 128
_HEADER = struct.Struct("Ii")  # handle_bytes, handle_type
_AT_SYMLINK_FOLLOW = 0x400
_AT_HANDLE_FID = 0x200  # an identity is enough, nobody will open it (Linux 6.5)


def read_file_handle(path: Path | str) -> bytes:
    """Return what tells the file at a path from all other files of its file system, ever.

    Raises OSError, by errno.
    """
    handle = ctypes.create_string_buffer(_HEADER.size + _MAX_HANDLE_BYTES)
    mount_id = ctypes.c_int()
    name = os.fsencode(path)
    ret = -Errno.EINVAL
    for flags in (_AT_SYMLINK_FOLLOW | _AT_HANDLE_FID, _AT_SYMLINK_FOLLOW):
        _HEADER.pack_into(handle, 0, _MAX_HANDLE_BYTES, 0)
        ret = libc.name_to_handle_at(
            name, ctypes.addressof(handle), ctypes.addressof(mount_id), flags
        )
        if ret != -Errno.EINVAL:
            break
    if ret < 0:
        raise OSError(-ret, os.strerror(-ret), str(path))
    length, _ = _HEADER.unpack_from(handle)
    return handle.raw[: _HEADER.size + length]
