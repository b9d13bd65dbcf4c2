"""Sphinx settings. The docstrings are the source of the API pages."""

from typing import Any

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
napoleon_google_docstring = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Say what a default is, and not what it came to on the machine that builds the pages."""
    memory = str(fastcore.MAX_BUFFER_SIZE)

    def without_memory(_app, _what, _name, _obj, _options, signature, returns):
        return signature and signature.replace(memory, "MAX_BUFFER_SIZE"), returns

    app.connect("autodoc-process-signature", without_memory)
