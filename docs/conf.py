"""Sphinx settings. The docstrings are the source of the API pages."""

import fastcore

project = "fastcore"
author = "the fastcore maintainers"
copyright = f"2026, {author}"
version = release = fastcore.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"fastcore {version}"
exclude_patterns = ["_build"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say them in words
autodoc_preserve_defaults = True  # and not what they came to on the machine that builds the pages
napoleon_google_docstring = False
napoleon_use_ivar = True
