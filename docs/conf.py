"""Settings of the documentation site, which `make docs` builds without network in build/site."""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

import readouts

logger = getLogger(__name__)
REPORT = "experiments/results/report"
START = "docs/index"

project = "readouts"
author = "The readouts developers"
release = readouts.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]

# The sources are the Markdown files where they are in a clone, so that their links work there, too.
root_doc = START
include_patterns = ["docs/**.md", "CONTRIBUTING.md", "CHANGELOG.md", f"{REPORT}.md"]
exclude_patterns = [".*", "build"]
suppress_warnings = [] if (Path(__file__).parent / "tutorials").exists() else ["toc.not_readable"]

default_role = "py:obj"  # `name` in a docstring is a link if the name is documented, else code
autodoc_default_options = {"members": True, "exclude-members": "forward, reset_parameters"}
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False
python_use_unqualified_type_names = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_output_stderr = "remove"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

html_theme = "furo"
html_title = "readouts"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False


def write_formula(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers show without a script; wide ones scroll."""
    displayed = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=displayed)
    except MathError as problem:
        logger.warning("%s in %s", problem, node.astext(), location=node)
    else:
        writer.body.append(f'<div class="formula">{formula}</div>' if displayed else formula)
    raise nodes.SkipNode


def name_sections(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn the anchors of the report, which are HTML for other readers of Markdown, into targets."""
    if page == REPORT:
        source[0] = re.sub(r'<a id="([\w-]+)"></a>', r"(\1)=", source[0])


def escape_stars(app: Sphinx, kind: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Show the star of a shape [N, *features], which reStructuredText takes for emphasis."""
    lines[:] = [re.sub(r"(?<!`)\*features", r"\\*features", line) for line in lines]


def redirect(app: Sphinx, error: Exception | None) -> None:
    """Lead from the top of the site to the start page."""
    if error is None:
        page = (
            f'<!doctype html><meta http-equiv="refresh" content="0; url={START}.html"><title>readouts</title>'
        )
        (Path(app.outdir) / "index.html").write_text(f'{page}<a href="{START}.html">readouts</a>\n')


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the functions above."""
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("source-read", name_sections)
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("build-finished", redirect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
