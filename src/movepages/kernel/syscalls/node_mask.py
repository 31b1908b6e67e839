"""Node masks of callers: get_nodes() and copy_nodes_to_user() of mm/mempolicy.c.

`maxnode` counts bits and one more: the kernel uses maxnode - 1 of them, of which mbind(2) and
migrate_pages(2) say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import MAX_NUMNODES, Errno
from movepages.abi.limits import ULONG_MAX
from movepages.nodeset import NodeSet

if TYPE_CHECKING:
    from movepages.kernel.ports import UserMemory

_WORD_BITS = 64


def get_nodes(
    user: UserMemory, pointer: int, maxnode: int, page_size_bytes: int
) -> tuple[int, NodeSet]:
    """Read a mask: an errno or 0, and the nodes. NULL, and `maxnode` 1, are no node.

    -EINVAL for more bits than a page has, and for one set beyond MAX_NUMNODES, where it looks
    first; -EFAULT.
    """
    bits = (maxnode - 1) & ULONG_MAX
    if bits == 0 or pointer == 0:
        return 0, NodeSet()
    if bits > page_size_bytes * 8:
        return -Errno.EINVAL, NodeSet()
    errno = _refusal_beyond(user, pointer, -(-bits // _WORD_BITS))
    if errno:
        return errno, NodeSet()
    bits = min(bits, MAX_NUMNODES)
    words = -(-bits // _WORD_BITS)
    found = user.read(pointer, np.uint64, words)
    if len(found) < words:
        return -Errno.EFAULT, NodeSet()
    mask = int.from_bytes(found.astype("<u8").tobytes(), "little") & ((1 << bits) - 1)
    return 0, NodeSet.from_bits(mask)


def _refusal_beyond(user: UserMemory, pointer: int, words: int) -> int:
    """Look at the words beyond MAX_NUMNODES, the last one first; return an errno or 0.

    They are looked at whole, also where `maxnode` ends within one.
    """
    for word in reversed(range(MAX_NUMNODES // _WORD_BITS, words)):
        found = user.read(pointer + word * _WORD_BITS // 8, np.uint64, 1)
        if not len(found):
            return -Errno.EFAULT
        if found[0]:
            return -Errno.EINVAL
    return 0


def copy_nodes_to_user(
    user: UserMemory, pointer: int, maxnode: int, nodes: NodeSet, nr_node_ids: int, page_size: int
) -> int:
    """Write a mask as whole words; those beyond `nr_node_ids` are cleared first.

    Return an errno or 0.
    """
    words = (maxnode - 1 + _WORD_BITS - 1 & ULONG_MAX) // _WORD_BITS
    known = -(-nr_node_ids // _WORD_BITS)
    if words > known:
        if words * 8 > page_size:
            return -Errno.EINVAL
        cleared = np.zeros(words - known, dtype=np.uint64)
        if user.write(pointer + known * 8, cleared) < len(cleared):
            return -Errno.EFAULT
        words = known
    mask = np.array(nodes.to_words(minimum=words)[:words], dtype=np.uint64)
    return 0 if user.write(pointer, mask) == words else -Errno.EFAULT
