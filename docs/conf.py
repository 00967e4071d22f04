"""The site: every Markdown file of the repository that people read, and what the code says of itself.

``make docs`` builds it with warnings as errors. The source is the repository's root, so that links work
here as they do where the files are read as they are. Nothing is loaded from the network.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from etils import epy
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


@contextlib.contextmanager
def lazy_imports() -> Iterator[None]:
    """Import the modules named in the block when an attribute of theirs is first used.

    The function is :func:`!etils.epy.lazy_imports`. A class or function imported in the block may be used in
    annotations only; at run time use it through its module.
    """
    yield


epy.lazy_imports = lazy_imports  # here they are not lazy: autodoc evaluates annotations

import generated  # noqa: E402

import mia_bench  # noqa: E402

project = "mia-bench"
author = "The mia-bench authors"
version = release = mia_bench.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "leaderboards/**.md",
    "plugins/examples/**.md",
]
exclude_patterns = ["docs/_build", ".*", "**/.*", "**/build"]  # not even looked into
smartquotes = False  # "--track" is two hyphens

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"mia-bench {release}"
html_copy_source = False
html_show_sourcelink = False

CONTENTS = """
```{toctree}
:caption: Start
:hidden:

/README
/docs/tutorial
/docs/own-models
```

```{toctree}
:caption: Plugins
:hidden:

/docs/contract
/docs/hooks/README
/plugins/examples/README
```

```{toctree}
:caption: Explanation
:hidden:

/docs/threat-models
/docs/protocol
/docs/images
/docs/statistics
/docs/reproducibility
/docs/clusters
/docs/caching
/docs/store
/docs/architecture
/docs/glossary
```

```{toctree}
:caption: Reference
:hidden:

/docs/reference/cli
/docs/reference/options
/docs/reference/metrics
/docs/reference/tracks
/docs/reference/record
/docs/reference/python
```

```{toctree}
:caption: Results
:hidden:

/docs/findings
/docs/experiments/README
/leaderboards/README
/docs/paper-tracks
/docs/performance
/docs/robustness
```

```{toctree}
:caption: Project
:hidden:

/docs/stability
/CONTRIBUTING
/CHANGELOG
```
"""
"""The order of the site; not in the file, where it would be read as text."""

BELOW = {
    "docs/README": CONTENTS,
    "docs/hooks/README": "\n```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\n```\n",
    "docs/experiments/README": "\n```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\n```\n",
    "leaderboards/README": "\n```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\ntuning/*\n```\n",
    "plugins/examples/README": "\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n```\n",
}


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = generated.fill(source[0]) + BELOW.get(docname, "")


def _outdated(app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
    """Pages with a generated part are made anew each time: the code may have changed."""
    return [
        name
        for name in env.found_docs
        if generated.MARK.search(Path(env.doc2path(name)).read_text(encoding="utf-8"))
    ]


def _links_to_folders(app: Sphinx, document: nodes.document) -> None:
    """A link to a folder of the repository leads to its README, if that is a page, or is plain text."""
    env = app.env
    for node in list(document.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst" or node.get("refdomain") or "://" in node["reftarget"]:
            continue
        relative, absolute = env.relfn2path(node["reftarget"], node["refdoc"])
        if not Path(absolute).is_dir():
            continue
        readme = f"{relative.rstrip('/')}/README"
        if readme in env.found_docs:
            node.update_basic_atts({})
            node["refdomain"], node["reftarget"], node["reftargetid"] = "doc", readme, None
        else:
            node.replace_self(node[0].deepcopy())


def _front_page(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        address = app.builder.get_target_uri(root_doc)
        text = (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>mia-bench</title>"
            f"<meta http-equiv='refresh' content='0; url={address}'></head>"
            f"<body><a href='{address}'>mia-bench</a></body></html>\n"
        )
        Path(app.outdir, "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what Sphinx calls."""
    app.connect("source-read", _fill)
    app.connect("env-get-outdated", _outdated)
    app.connect("doctree-read", _links_to_folders)
    app.connect("build-finished", _front_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
