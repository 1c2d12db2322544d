"""How the documentation is built: `make docs`. Nothing is fetched, so it builds without a network."""

from __future__ import annotations

import importlib.metadata

project = "mltoolkit"
author = "The mltoolkit developers"
copyright = "The mltoolkit developers, Apache-2.0"
release = importlib.metadata.version("mltoolkit")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute that is described in the class and has a docstring is listed once
autodoc_typehints = "none"  # numpydoc's own types are the ones written for readers
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = f"mltoolkit {release}"
html_copy_source = False
# The theme's fonts and scripts are its own; none come from elsewhere.
html_theme_options = {"navigation_with_keys": True}
