"""The site: the lessons as they are stored, a few pages of its own, and the API.

    python -m sphinx -W --keep-going -q -b html docs build/site

The lessons are copied from ``notebooks/`` into ``docs/lessons/``, which git ignores: Sphinx
follows no link out of its folder. Nothing is executed, and nothing is fetched: neither by the
build nor by a page that it makes. What a page takes from the lessons or from the package
stands in it as ``<!-- generated: name -->`` and is filled while the page is read.
"""

import importlib.util
import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mlmtutor  # noqa: E402
from tools import explorer, lessons  # noqa: E402

project = "mlmtutor"
version = release = mlmtutor.__version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["**.ipynb_checkpoints", "_static", "explorer"]
suppress_warnings = ["misc.highlighting_failure"]  # an error message is not always code

nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show {type}"
nb_code_prompt_hide = "Hide {type}"
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "tools.lessons.anchor"  # the fragments that JupyterLab gives to headings

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature of the source, and the text says shapes and dtypes
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "mlmtutor: the labels of BertForMaskedLM"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_sourcelink_suffix = ""  # so that the download of a lesson is called .ipynb
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system says
html_use_index = html_domain_indices = False  # the search finds what they would list
html_show_sphinx = False
html_show_copyright = False
mathjax_path = "tex-svg.js"  # one file, with its glyphs; setup() copies it
html_theme_options = {
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_fullscreen_button": False,
    "logo": {"text": "mlmtutor"},
    "navbar_persistent": [],  # the sidebar has the search
    "footer_content_items": [],
}

API = ["labels", "masking", "loss", "scoring", "alignment_table", "doctor.diagnosis"]
API += ["doctor.rules", "doctor.source", "releases", "labelled_only", "model", "figure"]
OWNERS = dict.fromkeys(["transformers", "tokenizers"], "huggingface") | {"pytorch": "pytorch"}


def copy_lessons():
    """Bring ``docs/lessons/`` up to date with ``notebooks/``."""
    folder = pathlib.Path(__file__).parent / "lessons"
    (folder / "deeper").mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    wanted = {folder / path.relative_to(lessons.NOTEBOOKS): path for path in lessons.all_paths()}
    for old in folder.glob("**/*.ipynb"):
        if old not in wanted:
            old.unlink()
    for copy, path in wanted.items():
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copy(path, copy)


def entry(path):
    """Return the line of a lesson in the contents, with its number."""
    number = path.name[:2]
    place = path.relative_to(lessons.NOTEBOOKS).with_suffix("").as_posix()
    return f"{number} {lessons.title(lessons.read(path))} <lessons/{place}>"


def contents():
    """Return the contents of the site."""
    core = lessons.lesson_paths()
    parts = {
        "Core": [entry(path) for path in core[:6]],
        "Try it": ["explorer"],
        "In practice": [entry(path) for path in core[6:]],
        "Deeper": [entry(path) for path in lessons.deeper_paths()],
        "Look up": ["questions", "glossary", "api", "doctor", "releases"],
        "About": ["reading", "instructors", "performance", "reliability"],
    }
    trees = []
    for caption, pages in parts.items():
        trees += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(trees)


def lesson_table():
    """Return the lessons with their minutes and results."""
    return lessons.lesson_table().replace("](", "](lessons/")


def thread(name):
    """Return a link to a thread where its name says which repository it is in."""
    found = re.fullmatch(r"(?:([\w-]+)/)?([\w.-]+)#(\d+)", name)
    owner = found and (found[1] or OWNERS.get(found[2]))
    if not owner:
        return name
    return f"[{name}](https://github.com/{owner}/{found[2]}/issues/{found[3]})"


def question_list():
    """Return the index of questions, with links to the threads whose repository is known."""
    head, *groups = lessons.question_index().replace("](", "](lessons/").split("\n## ")
    found = re.compile(r"(?<=<small>).*?(?=</small>)")
    groups = [found.sub(lambda m: ", ".join(map(thread, m[0].split(", "))), g) for g in groups]
    return "\n".join(f"\n## {group}" for group in groups)


def alignment_table():
    """Return the alignment table of the sentence that all lessons share."""
    model, tokenizer = mlmtutor.load_tutor()
    ids = tokenizer("I want to [MASK] the world.", return_tensors="pt")["input_ids"]
    labels = ids.masked_fill(ids != tokenizer.mask_token_id, -100)
    labels[ids == tokenizer.mask_token_id] = tokenizer.convert_tokens_to_ids("change")
    logits = model(ids).logits
    return mlmtutor.alignment({"input_ids": ids, "labels": labels}, tokenizer, logits)._repr_html_()


def api():
    """Return one section for each public module, with the example of each function."""
    parts = []
    for name in API:
        directive = [f".. automodule:: mlmtutor.{name}", "   :members:"]
        parts.append("\n".join([f"## {name}", "", "```{eval-rst}", *directive, "```", ""]))
    return "\n".join(parts)


GENERATED = {
    "contents": contents,
    "lessons": lesson_table,
    "questions": question_list,
    "alignment": alignment_table,
    "api": api,
    "explorer": explorer.explorer,
    "cases": explorer.cases,
}


def fill(app, docname, source):
    """Fill in what is generated, and lead links into the repository to the page or file."""
    if docname.startswith("lessons/"):
        app.env.note_dependency(str(explorer.SOURCE / "presets.json"))
        source[0] = explorer.link_presets(docname.removeprefix("lessons/"), source[0])
        source[0] = source[0].replace("](questions.md)", "](../questions.md)")
    text = re.sub(r"<!-- generated: (\w+) -->", lambda match: GENERATED[match[1]](), source[0])
    source[0] = text.replace("](../notebooks/", "](lessons/")


def whole_sentences(app, what, name, member, options, lines):
    """Keep napoleon from taking what stands before a colon for a type: ours are sentences."""
    starts = [i + 1 for i, line in enumerate(lines) if line.strip() == "Returns:"]
    for i in starts + ([0] if what in ("data", "attribute") and lines else []):
        words = lines[i].lstrip()
        lines[i] = f"{lines[i][: -len(words)]}: {words}"


def skip(app, what, name, member, skipped, options):
    """Leave out the fields of named tuples: the class describes them."""
    return True if (getattr(member, "__doc__", "") or "").startswith("Alias for field") else None


def always_again(app, env, added, changed, removed):
    """Read the pages again that hold generated parts: what they are made of may have changed."""
    return {"index", "questions", "api", "explorer"} & set(env.found_docs)


def reachable(app, pagename, templatename, context, doctree):
    """Let the keyboard reach what scrolls sideways."""
    scrolling = '<div style="overflow-x:auto;"'
    named = f'{scrolling} tabindex="0" role="group" aria-label="table that may scroll sideways"'
    context["body"] = context.get("body", "").replace(f"{scrolling}>", f"{named}>")


def copy_mathjax(app):
    """Give the pages the one file of MathJax that they need."""
    package = pathlib.Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    static = pathlib.Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "static" / "mathjax" / "tex-svg.js", static)


def copy_explorer(app):
    """Give the site what the explorer loads: the model is exported first, where it is new."""
    explorer.copy(pathlib.Path(app.outdir) / "_static" / "explorer")


def label_tables(app, pagename, templatename, context, doctree):
    """Give each Markdown table the heading above it as a caption, and its column heads a scope."""
    parts = re.split(r"(<h[1-6]>.*?</h[1-6]>)", context.get("body", ""), flags=re.S)
    for at in range(2, len(parts), 2):
        words = re.sub(r"<a class=\"headerlink\".*?</a>", "", parts[at - 1], flags=re.S)
        caption = f'<caption class="visually-hidden">{re.sub("<.*?>", "", words)}</caption>'
        part = parts[at].replace('<table class="table">', f'<table class="table">{caption}')
        parts[at] = part.replace('<th class="head', '<th scope="col" class="head')
    context["body"] = "".join(parts)


def setup(app):
    """Connect the above to the build."""
    app.connect("source-read", fill)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", whole_sentences, priority=400)  # before napoleon
    app.connect("env-get-outdated", always_again)
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", copy_explorer)
    app.connect("html-page-context", reachable)
    app.connect("html-page-context", label_tables)
    copy_lessons()
