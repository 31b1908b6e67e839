"""Prints how it was started, as a line of JSON: mode and nodes of its policy, its CPUs."""

from __future__ import annotations

import ctypes
import json
import os

import numa

mode = ctypes.c_int()
mask = (ctypes.c_ulong * 16)()
size = 8 * ctypes.sizeof(mask)
assert numa.call("get_mempolicy", ctypes.addressof(mode), ctypes.addressof(mask), size) == 0
nodes = [node for node in range(size) if mask[node // 64] >> node % 64 & 1]
print(json.dumps({"mode": mode.value, "nodes": nodes, "cpus": sorted(os.sched_getaffinity(0))}))  # noqa: T201
