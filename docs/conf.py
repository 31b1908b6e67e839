"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

import movepages

project = "movepages"
copyright = "the movepages authors"
release = movepages.__version__
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# The types stand in the signatures once; array types are known by the names they are written with.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"movepages {release}"
# A page of a kernel tool is read on machines without a network as well.
html_show_sourcelink = False
html_copy_source = False
