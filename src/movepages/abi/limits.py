"""Limits that shape the calls."""

MAX_NUMNODES = 1024
"""Nodes in a kernel with CONFIG_NODES_SHIFT=10, the usual maximum. A real kernel's own limit is
asked for, not assumed."""

QUERY_CHUNK_PAGES = 16
"""Pages that do_pages_stat() looks up at a time (DO_PAGES_STAT_CHUNK_NR in mm/migrate.c)."""

CONTROL_ENTRY_BYTES = {64: 24, 32: 16}
"""struct page_to_node of 2006, by word size: addr, page, node, status."""

ULONG_MAX = 2**64 - 1
"""The largest unsigned long of a 64-bit kernel."""
