"""Memory policies of the caller, with node sets in place of bit masks.

The masks of these calls have a quirk: the kernel reads maxnode - 1 bits, but get_mempolicy(2) wants
maxnode to be at least the number of nodes it knows, and says so only with EINVAL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from movepages.abi import MAX_NUMNODES, Errno, PolicyQuery
from movepages.errors import call_error
from movepages.linux import filters, syscalls
from movepages.linux.reading import ROOT
from movepages.linux.syscalls import address_of
from movepages.nodeset import NodeSet
from movepages.values import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

_WORD_BITS = 64


def mask_of(nodes: Iterable[int]) -> tuple[NDArray[np.uint64], int]:
    """Return the kernel's bit mask of some nodes, uint64[words], and its `maxnode`."""
    words = NodeSet(nodes).to_words(_WORD_BITS)
    return np.array(words, dtype=np.uint64), NodeSet.maxnode(words, _WORD_BITS)


def migrate_pages(
    pid: int, from_nodes: Iterable[int], to_nodes: Iterable[int], root: Path = ROOT
) -> int:
    """Move all pages of a process: migrate_pages(2). Return the count of folios not moved.

    Raises CallError. The order of nodes is kept: the n-th of `from` goes to the n-th of `to`.
    """
    old, new = NodeSet(from_nodes), NodeSet(to_nodes)
    words = max(len(old.to_words()), len(new.to_words()))
    old_mask = np.array(old.to_words(_WORD_BITS, words), dtype=np.uint64)
    new_mask = np.array(new.to_words(_WORD_BITS, words), dtype=np.uint64)
    maxnode = words * _WORD_BITS + 1
    ret = syscalls.migrate_pages(pid, maxnode, address_of(old_mask), address_of(new_mask))
    facts = {"pid": pid, "arguments": {"from_nodes": str(old), "to_nodes": str(new)}}
    return _checked("migrate_pages", ret, root, **facts)


def mbind(
    start: int, length_bytes: int, mode: int, nodes: Iterable[int], flags: int, root: Path = ROOT
) -> None:
    """Set the policy of a range of the caller: mbind(2). Raises CallError."""
    mask, maxnode = mask_of(nodes)
    ret = syscalls.mbind(start, length_bytes, mode, address_of(mask), maxnode, flags)
    arguments = {"length_bytes": length_bytes, "mode": mode, "flags": flags}
    _checked("mbind", ret, root, address=start, arguments=arguments)


def set_mempolicy(mode: int, nodes: Iterable[int], root: Path = ROOT) -> None:
    """Set the policy of the calling thread: set_mempolicy(2). Raises CallError."""
    mask, maxnode = mask_of(nodes)
    ret = syscalls.set_mempolicy(mode, address_of(mask), maxnode)
    _checked("set_mempolicy", ret, root, arguments={"mode": mode})


def get_mempolicy(address: int | None = None, root: Path = ROOT) -> Policy:
    """Return the policy of the calling thread, or of the mapping at an address. Raises CallError.

    Asking for an address does not fault its page in; only MPOL_F_NODE would.
    """
    mode = np.zeros(1, dtype=np.int32)
    flags = 0 if address is None else PolicyQuery.ADDR
    ret, bits = -Errno.EINVAL, MAX_NUMNODES
    while ret == -Errno.EINVAL and bits <= MAX_NUMNODES << 6:  # EINVAL: fewer bits than its nodes
        mask = np.zeros(bits // _WORD_BITS, dtype=np.uint64)
        ret = syscalls.get_mempolicy(address_of(mode), address_of(mask), bits, address, flags)
        bits <<= 1
    _checked("get_mempolicy", ret, root, address=address)
    return Policy(int(mode[0]), NodeSet.from_words(mask.tolist(), _WORD_BITS))


def set_home_node(start: int, length_bytes: int, node: int, root: Path = ROOT) -> None:
    """Set the home node of a range: set_mempolicy_home_node(2). Raises CallError."""
    ret = syscalls.set_mempolicy_home_node(start, length_bytes, node, 0)
    _checked("set_mempolicy_home_node", ret, root, address=start, node=node)


def _checked(call: str, ret: int, root: Path, **facts: Any) -> int:
    if ret >= 0:
        return ret
    if ret in {-Errno.EPERM, -Errno.ENOSYS}:
        refused = filters.refusal(call, root)
        if refused:
            raise refused
    raise call_error(ret, call, **facts)
