"""All scenarios, by subject; importing this registers them."""

from suite.scenarios import (
    arguments,
    batches,
    cpusets,
    files,
    full_node,
    large_folios,
    lookups,
    migrate_pages,
    moves,
    pins,
    policies,
    rights,
    sharing,
)

__all__ = [
    "arguments",
    "batches",
    "cpusets",
    "files",
    "full_node",
    "large_folios",
    "lookups",
    "migrate_pages",
    "moves",
    "pins",
    "policies",
    "rights",
    "sharing",
]
