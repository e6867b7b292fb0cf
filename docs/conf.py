"""The site: the lessons as they are stored, a few pages of its own, and the API.

    python -m sphinx -W --keep-going -q -b html docs build/site

With MLMTUTOR_NOTEBOOKS=$PWD/build/zh/notebooks, ``-c docs build/zh/docs build/site/zh`` makes the
Chinese edition of the same. It has the pages that are translated, and leads to the English site
for all others.

The lessons are copied from ``notebooks/`` into ``docs/lessons/``, which git ignores: Sphinx
follows no link out of its folder. Nothing is executed, and nothing is fetched: neither by the
build nor by a page that it makes. What a page takes from the lessons or from the package
stands in it as ``<!-- generated: name -->`` and is filled while the page is read.
"""

import os
import pathlib
import re
import shutil
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import explorer_page  # noqa: E402
import lesson_pages  # noqa: E402
from sphinx.search import languages  # noqa: E402
from sphinx.search.en import SearchEnglish  # noqa: E402

import mlmtutor  # noqa: E402
from mlmtutor._messages import translated  # noqa: E402
from mlmtutor.lessons import lesson_01  # noqa: E402
from tools import explorer, lessons  # noqa: E402
from tools.translate import LANGUAGE  # noqa: E402

os.environ["MLMTUTOR_LANG"] = language = LANGUAGE

project = "mlmtutor"
version = release = mlmtutor.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**.ipynb_checkpoints", "_static", "explorer"]
suppress_warnings = ["misc.highlighting_failure"]  # an error message is not always code

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
myst_heading_slug_func = "tools.lessons.anchor"  # the fragments that JupyterLab gives to headings

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature of the source, and the text says shapes and dtypes
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = translated("mlmtutor: the labels of BertForMaskedLM")
templates_path = ["_templates"]
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_search_scorer = str(ROOT / "docs" / "_static" / "scorer.js")
html_sourcelink_suffix = ""  # so that the download of a lesson is called .ipynb
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system says
html_use_index = html_domain_indices = False  # the search finds what they would list
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_fullscreen_button": False,
    "logo": {"text": "mlmtutor"},
    "navbar_persistent": [],  # the sidebar has the search
    "article_header_end": ["language.html", "article-header-buttons.html"],
    "footer_content_items": [],
}

API = ["labels", "masking", "loss", "scoring", "alignment_table", "doctor.diagnosis"]
API += ["doctor.rules", "doctor.source", "releases.explain", "releases.history"]
API += ["labelled_only", "model", "figure"]
REFERENCE = ["api", "doctor", "releases"]


class Search(SearchEnglish):
    """The search of Sphinx, which also finds 80/10/10, -100, and Chinese words.

    Chinese doesn't part its words. Each character and each pair of neighbours is a word here, and
    what is asked for is cut into its pairs.
    """

    _word_re = re.compile(r"\d+(?:/\d+)+|-\d+|[\u3400-\u9fff]+|(?:(?![\u3400-\u9fff])\w)+")
    js_splitter_code = r"""
function splitQuery(query) {
  const han = /^[\u3400-\u9fff]{2}/;
  const word = /\d+(?:\/\d+)+|-\d+|[\u3400-\u9fff]+|(?:(?![\u3400-\u9fff])[\p{L}\p{N}_])+/gu;
  return (query.match(word) ?? []).flatMap((word) => han.test(word)
    ? [...word].slice(1).map((second, at) => word[at] + second)
    : word.replace(/^-/, "minus"));  // "-word" would exclude it
}
"""

    def split(self, input):
        """Return the words of a text."""
        words = [re.sub("^-", "minus", word) for word in super().split(input)]
        runs = [word for word in words if word >= "\u3400"]
        return words + [run[at : at + n] for run in runs for n in (1, 2) for at in range(len(run))]


languages["en"] = languages["zh"] = Search


def copy_lessons(app):
    """Bring the lessons in the folder of the pages up to date."""
    folder = pathlib.Path(app.srcdir) / "lessons"
    (folder / "deeper").mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    places = {path: path.relative_to(lessons.NOTEBOOKS) for path in lessons.all_paths()}
    wanted = {
        folder / place: path
        for path, place in places.items()
        if lesson_pages.here(f"lessons/{place.with_suffix('').as_posix()}")
    }
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
    name = lessons.title(lessons.read(path)).replace("`", "")
    return f"{number} {name} <lessons/{place}>"


def contents():
    """Return the contents of the site."""
    core = lessons.lesson_paths()
    parts = {
        translated("Core"): [entry(path) for path in core[:6]],
        "Try it": ["explorer", "The answer in one notebook <labels_in_bert>"],
        translated("In practice"): [entry(path) for path in core[6:]],
        "Deeper": [entry(path) for path in lessons.deeper_paths()],
        translated("Look up"): ["questions", "glossary", "cheat_sheet", *REFERENCE],
        "About": ["reading", "instructors", "worksheet", "exit_quiz", "performance", "reliability"],
    }
    trees = []
    for caption, pages in parts.items():
        if pages := [p for p in pages if lesson_pages.here(p.rstrip(">").rpartition("<")[2])]:
            trees += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(trees)


def lesson_table():
    """Return the lessons with their minutes and results, as lesson 00 has them."""
    [cell] = lessons.tagged(lessons.read(lessons.lesson_paths()[0]), "lesson-table")
    return cell.source.replace("](", "](lessons/")


def question_list():
    """Return the index of questions with links to the threads, without its own heading."""
    text = (lessons.NOTEBOOKS / "questions.md").read_text("utf-8").replace("](", "](lessons/")
    _, *groups = lesson_pages.link_threads(text).split("\n## ")
    return "\n".join(f"\n## {group}" for group in groups)


def sentence():
    """Return the batch of the sentence that all lessons share, its tokenizer, and the logits."""
    model, tokenizer = mlmtutor.load_tutor()
    ids = tokenizer("I want to [MASK] the world.", return_tensors="pt")["input_ids"]
    hidden = ids == tokenizer.mask_token_id
    labels = ids.masked_fill(~hidden, -100)
    labels[hidden] = tokenizer.convert_tokens_to_ids("change")
    return {"input_ids": ids, "labels": labels}, tokenizer, model(ids).logits.detach()


def alignment_table():
    """Return the alignment table of that sentence."""
    return mlmtutor.alignment(*sentence())._repr_html_()


def dataflow():
    """Return the figure of lesson 01."""
    return lesson_01.dataflow(*sentence())._repr_html_()


def on_paper(chosen, start=1):
    """Return questions of the quiz to print: the choices, and the answers on a page of their own.

    ``chosen``: pairs of a lesson and the number of its question, from 0; ``start``: the first
    number on the page.
    """
    quiz = tomllib.loads((lessons.NOTEBOOKS / "quiz.toml").read_text(encoding="utf-8"))
    asked, answers = [], []
    for number, (lesson, which) in enumerate(chosen, start):
        question = quiz[lesson][which]
        choices = "  \n".join(f"☐ {choice['text']}" for choice in question["choice"])
        [right] = [choice for choice in question["choice"] if choice.get("right")]
        asked.append(f"**{number}.** {question['asks']}\n\n{choices}")
        text = right["text"].rstrip(".")
        answers.append(f"{number}. **{text}.** {right['why']} (lesson {lesson})")
    return "\n\n".join([*asked, "## Answers", "\n".join(answers)])


EXIT = [("01", 0), ("01", 1), ("02", 1), ("04", 0), ("05", 0)]


def exit_quiz():
    """Return the five questions at the end of a class of 90 minutes."""
    return on_paper(EXIT)


def worksheet():
    """Return the other questions of the lessons of that class."""
    every = [(lesson, which) for lesson in ("01", "02", "04", "05") for which in range(3)]
    return on_paper([question for question in every if question not in EXIT], 4)


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
    "dataflow": dataflow,
    "exit_quiz": exit_quiz,
    "worksheet": worksheet,
    "alignment": alignment_table,
    "api": api,
    "explorer": explorer_page.explorer,
    "cases": explorer_page.cases,
}


def fill(app, docname, source):
    """Fill in what is generated, and lead links into the repository to the page or file."""
    if docname.startswith("lessons/"):
        for file in (
            explorer.SOURCE / "presets.json",
            lesson_pages.DOCS / "glossary.md",
            lesson_pages.__file__,
        ):
            app.env.note_dependency(str(file))
        source[0] = lesson_pages.page(docname, source[0])
    text = re.sub(r"<!-- generated: (\w+) -->", lambda match: GENERATED[match[1]](), source[0])
    text = text.replace("](../notebooks/", "](lessons/")
    source[0] = text if docname.startswith("lessons/") else lesson_pages.to_english(text, docname)


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
    filled = {"index", "questions", "api", "explorer", "exit_quiz", "worksheet"}
    return filled & set(env.found_docs)


def own_box(table):
    """Return a table in a box of its own that scrolls, with its caption outside."""
    found = re.search("<caption[^>]*>(.*?)</caption>", table)
    words = f'<p class="caption" aria-hidden="true">{found[1]}</p>' if found else ""
    table = re.sub("<caption[^>]*>", '<caption class="visually-hidden">', table)
    named = translated("table that may scroll sideways")
    named = f'tabindex="0" role="group" aria-label="{named}"'
    box = f'<div style="overflow-x:auto;" {named}>{table}</div>'
    return words + box if found and "caption-side:top" in found[0] else box + words


def reachable(app, pagename, templatename, context, doctree):
    """Let the keyboard reach what scrolls sideways, and keep its caption from scrolling."""

    def boxes(match):
        return re.sub("<table .*?</table>", lambda table: own_box(table[0]), match[1], flags=re.S)

    scrolling = r'<div style="overflow-x:auto;">(.*?)</div>'
    context["body"] = re.sub(scrolling, boxes, context.get("body", ""), flags=re.S)


def copy_explorer(app):
    """Give the site what the explorer loads: the model is exported first, where it is new."""
    if lesson_pages.here("explorer"):
        explorer.copy(pathlib.Path(app.outdir) / "_static" / "explorer")


def link_editions(app, pagename, templatename, context, doctree):
    """Lead from a page to the same one in the other language, or to the first one there."""
    up, page = "../" * pagename.count("/"), f"{pagename}.html"
    english, chinese = (up, f"{up}zh/") if language == "en" else (f"{up}../", up)
    pages = {"en": english + page, "zh-CN": chinese + page, "x-default": english + page}
    context["other"] = "zh-CN" if language == "en" else "en"
    context["twin"] = f"{chinese}index.html"
    if pagename in lesson_pages.CHINESE:
        context["twin"] = pages[context["other"]]
        links = (f'<link rel="alternate" hreflang="{k}" href="{v}">' for k, v in pages.items())
        context["metatags"] = "\n".join([context.get("metatags", ""), *links])


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
    app.connect("builder-inited", copy_explorer)
    app.connect("html-page-context", reachable)
    app.connect("html-page-context", label_tables)
    app.connect("html-page-context", link_editions)
    copy_lessons(app)
