"""No network, no pickle, no script in a notebook, and a doctor that runs nothing it reads."""

import ast
import collections
import contextlib
import doctest
import html.parser
import importlib.metadata
import io
import json
import os
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import time

import stored
import nbformat
import proofs
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from mlmtutor import load_tutor
from mlmtutor.doctor import source as lint
from mlmtutor.__main__ import main

ROOT = stored.ROOT
OUTCOMES = collections.Counter()
PATIENCE = 60  # seconds for one hostile file
SHIPPED = ROOT / "mlmtutor"


@pytest.fixture(scope="module", autouse=True)
def _counted():
    yield
    proofs.record("hostile files", {"files": OUTCOMES.total(), **OUTCOMES})


# No network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_this_process_cannot_leave_the_machine(address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as outside:
        for leave in (outside.connect, outside.connect_ex):
            with pytest.raises(ConnectionRefusedError, match="the test refuses"):
                leave(address)
    with (
        contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as outside,
        pytest.raises(ConnectionRefusedError, match="the test refuses"),
    ):
        outside.sendto(b"x", address)
    with pytest.raises(OSError, match="the test refuses"):
        socket.getaddrinfo("example.org", 80)


def test_this_process_can_talk_to_itself():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        socket.create_connection(server.getsockname()).close()


def test_a_process_that_a_test_starts_cannot_either():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the test refuses a connection to 192.0.2.1" in done.stderr


# No pickle ----------------------------------------------------------------------------------------


def python_sources():
    """Yield the name and the text of each Python file and of the code of each lesson."""
    for folder in ("mlmtutor", "tools", "tests", "benchmarks", "docs", "."):
        for path in sorted((ROOT / folder).glob("**/*.py" if folder != "." else "*.py")):
            if "build" not in path.relative_to(ROOT).parts:
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in stored.PATHS:
        for number, cell in enumerate(stored.read(path).cells):
            if cell.cell_type == "code":
                yield f"{path.name} cell {number}", cell.source


def unpickling(source):
    """What in the source can run code from a file, or from the network: lines with the reason."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            tops = {name.split(".")[0] for name in names}
            found += [(line, t) for t in tops & {"pickle", "dill", "joblib", "cloudpickle"}]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("torch.load", "pickle.load", "pickle.loads", "torch.hub.load"):
                found.append((line, called))
            for option in ("allow_pickle", "trust_remote_code"):
                if options.get(option, "False") != "False":
                    found.append((line, option))
    return found


def test_nothing_loads_a_pickle_or_remote_code():
    found = {name: unpickling(source) for name, source in python_sources()}
    assert len(found) > 300
    # These two make pickles, to show that they are refused.
    allowed = {"tests/test_security.py", "tests/test_files.py"}
    assert {name for name, lines in found.items() if lines} == allowed
    assert {reason for name in allowed for _, reason in found[name]} == {"pickle", "pickle.loads"}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(path)", "import dill.source as d",
     "np.load(p, allow_pickle=True)", "from_pretrained(n, trust_remote_code=True)",
     "torch.hub.load('a/b', 'c')"],
)  # fmt: skip
def test_the_search_for_pickles_finds_them(source):
    assert unpickling(source)
    assert not unpickling("np.load(p, allow_pickle=False); json.load(f)")


class Payload:
    """Leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "vocab.txt"])
def test_a_checkpoint_of_pickles_is_refused_and_nothing_runs(tmp_path, name):
    folder, mark = tmp_path / "checkpoint", tmp_path / "mark"
    sizes = dict.fromkeys(("hidden_size", "num_attention_heads", "intermediate_size"), 4)
    BertForMaskedLM(BertConfig(num_hidden_layers=1, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(SHIPPED / "tutor_bert").save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bert": Payload(mark)}, folder / name)
    with pytest.raises((OSError, ValueError), match="checkpoint"):
        load_tutor(folder)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # the control: the payload works
    assert mark.exists()


def test_a_checkpoint_with_code_of_its_own_is_refused_and_nothing_runs(tmp_path):
    mark = tmp_path / "mark"
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config",
              "AutoModelForMaskedLM": "evil.Model"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises((OSError, ValueError)):
        load_tutor(tmp_path)
    assert not mark.exists()


# No script in a notebook --------------------------------------------------------------------------

STATIC = {"text/plain", "text/html", "image/png"}


class Scripts(html.parser.HTMLParser):
    """Finds what a browser would run or fetch."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Look at one tag."""
        if tag in ("script", "iframe", "object", "embed", "form", "link", "meta", "base", "svg"):
            self.found.append(tag)
        for name, value in attributes:
            place = re.sub(r"[\s\0]", "", value or "").lower()
            if name.startswith("on") or place.startswith(("javascript:", "vbscript:")):
                self.found.append(name)
            if name == "src" and not place.startswith("data:image/png;base64,"):
                self.found.append(f"src {place[:40]}")
            if name == "href" and place.startswith("data:"):
                self.found.append("href data:")

    handle_startendtag = handle_starttag


def scripts_in(notebook):
    """What in a notebook is not static."""
    found = [key for key in notebook.metadata if key == "widgets"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found += Scripts(cell.source).found
            found += re.findall(r"\]\(\s*(?:javascript|data|vbscript):", cell.source, re.I)
        found += list(cell.get("attachments", {}))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += sorted(set(data) - STATIC)
            found += Scripts("".join(data.get("text/html", ""))).found
    return found


@pytest.mark.parametrize("path", stored.PATHS, ids=stored.NAMES)
def test_a_lesson_holds_no_script(path):
    assert scripts_in(stored.read(path)) == []


@pytest.mark.parametrize(
    "text",
    ["<script>x</script>", "<img src=x onerror=alert(1)>", "<a href='java\tscript:x'>a</a>",
     "<p ONCLICK='x'>", "<iframe src='data:text/html,x'>", "<img src='https://a.b/c.png'>",
     "<svg/onload=x>", "<a href='data:text/html,x'>a</a>"],
)  # fmt: skip
def test_the_search_for_scripts_finds_them(text):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    assert scripts_in(notebook)
    output = nbformat.v4.new_output("display_data", {"text/html": text})
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    assert scripts_in(nbformat.v4.new_notebook(cells=[cell]))


def test_an_output_of_javascript_or_widgets_is_found():
    for kind in ("application/javascript", "application/vnd.jupyter.widget-view+json"):
        output = nbformat.v4.new_output("display_data", {kind: "x"})
        cell = nbformat.v4.new_code_cell("x", outputs=[output])
        assert scripts_in(nbformat.v4.new_notebook(cells=[cell])) == [kind]
    assert scripts_in(nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell("[a](javascript:x)")]))  # fmt: skip


# The doctor and hostile files ---------------------------------------------------------------------


def notebook_of(*sources):
    cells = [{"cell_type": "code", "metadata": {}, "source": source} for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


MIB = 1024 * 1024
BERT = "from transformers import BertForMaskedLM\nmodel = BertForMaskedLM(c)\n"
HOSTILE = {  # name: content; each of them once made, or could make, a parser crash or wait
    "brackets.py": "(" * 100_000 + ")" * 100_000,
    "lists.py": "x = " + "[" * 100_000,
    "powers.py": "x = " + "1**" * 100_000 + "1",
    "lambdas.py": "x = " + "lambda: " * 100_000 + "1",
    "conditions.py": "x = " + "1 if x else " * 50_000 + "1",
    "assignments.py": "a = " * 100_000 + "1",
    "calls.py": "x = a" + ".f()" * 100_000,
    "subscripts.py": "a[" * 50_000 + "0" + "]" * 50_000,
    "strings.py": "x = " + "'a' " * 200_000,
    "fstrings.py": "x = " + "f'{" * 50_000,
    "decorators.py": "@a\n" * 100_000 + "def f(): pass",
    "awaits.py": "async def f():\n    " + "await " * 100_000 + "x",
    "stars.py": "f(" + "*" * 100_000 + "a)",
    "walrus.py": "(a:=" * 50_000,
    "elifs.py": "if x: pass\n" + "elif x: pass\n" * 100_000,
    "indents.py": "".join(" " * depth + "if x:\n" for depth in range(3000)),
    "digits.py": "x = " + "9" * 1_000_000,
    "lines.py": "model(x, masked_lm_labels=y)\n" * 60_000,
    "rounds.py": BERT + "model(x, masked_lm_labels=y)\n" * 50_000,
    "stores.py": BERT + "labels = ids\nids[0] = tokenizer.mask_token_id\n" * 20_000,
    "kinds.py": BERT + "model = BertForMaskedLM(c)\nmodel(x, labels=y)\n" * 20_000,
    "huge.py": "x = 1\n" * (3 * MIB),
    "nul.py": "x = 1\0\n",
    "latin.py": b"x = '\xff\xfe'\n",
    "utf16.py": "x = 1".encode("utf-16"),
    "codec.py": "# -*- coding: hex -*-\n78203d2031\n",
    "random.py": bytes(range(256)) * 4096,
    "surrogate.py": "x = '\\ud800'\n",
    "bidi.py": "x = 1 # \u202e\u2066\n\u202e",
    "empty.py": "",
    "new\nline.py": "x = (",
    "esc\x1b[31m.py": "x = (",
    "broken.ipynb": '{"cells": [',
    "dicts.ipynb": '{"cells": {"a": {}}}',
    "numbers.ipynb": '{"cells": [1, 2, 3]}',
    "texts.ipynb": '{"cells": "abc"}',
    "sources.ipynb": '{"cells": [{"cell_type": "code", "source": {"a": 1}}]}',
    "kernel.ipynb": '{"metadata": {"kernelspec": []}, "cells": []}',
    "deep.ipynb": '{"cells":' + "[" * 1_000_000,
    "deep_dicts.ipynb": '{"a":' * 200_000,
    "number.ipynb": '{"cells": ' + "9" * 1_000_000 + "}",
    "infinite.ipynb": '{"cells": [], "metadata": Infinity}',
    "picture.ipynb": json.dumps({"cells": [], "metadata": {"x": "A" * (12 * MIB)}}),
    "many_cells.ipynb": notebook_of(*["model(x, masked_lm_labels=y)"] * 20_000),
    "large_cells.ipynb": notebook_of(*["x = 1\n" * 300_000] * 6),
    "empty_lists.ipynb": '{"cells": [], "x": [' + "[]," * (4 * MIB) + "0]}",
    "nul.ipynb": notebook_of("x = 1\0"),
    "surrogates.ipynb": '{"cells": [{"cell_type": "code", "source": "x = \\"\\ud800"}]}',
    "magic.ipynb": notebook_of("!touch {mark}", "%%bash\ntouch {mark}", "%run evil.py"),
    "latin.ipynb": b'{"cells": ["\xff"]}',
}


def doctor(*paths, options=()):
    """Run the command line in this process; return its status, its output and the seconds."""
    begun = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(["doctor", *options, *map(os.fspath, paths)])
    return status, out.getvalue(), time.monotonic() - begun


def doctor_process(*paths, options=(), user=()):
    """Run it in a process of its own, where a crash of the interpreter would be seen."""
    done = subprocess.run(
        [*user, sys.executable, "-m", "mlmtutor", "doctor", *options, *map(os.fspath, paths)],
        capture_output=True, timeout=PATIENCE * 5, env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode in (0, 1, 2), done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), None


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_read_in_time(tmp_path, name):
    content = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    begun = time.monotonic()
    report = lint.lint_paths([path])
    assert time.monotonic() - begun < PATIENCE
    text = lint.as_text(report)
    assert all(line.isprintable() for line in text.split("\n"))
    json.loads(lint.as_json(report))
    lint.as_github(report).encode()
    codes = {finding.code for finding in report.findings}
    OUTCOMES["one clear line" if codes == {"does-not-parse"} else "read"] += 1
    if codes == {"does-not-parse"}:
        assert text.count("\n") <= 2 * len(report.findings)
        assert max(map(len, text.split("\n"))) < 500


def test_all_of_them_at_once_from_the_command_line(tmp_path):
    """A crash of the interpreter, such as a stack that overflows, would end this process."""
    mark = tmp_path / "mark"
    for name, content in HOSTILE.items():
        if len(content) < MIB:
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(data.replace(b"{mark}", os.fsencode(mark)))
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (tmp_path / "conftest.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (tmp_path / os.fsdecode(b"not-utf8-\xff.py")).write_text("x = (")
    for form in ("text", "json", "github"):
        run = doctor_process if form == "text" else doctor
        status, text, _ = run(tmp_path, options=["--format", form])
        assert status == 1
        assert "does-not-parse" in text
    assert not mark.exists()
    OUTCOMES["one clear line"] += 1


def special_files(folder):
    """Make what is no ordinary file, each under a name that the doctor looks at."""
    os.mkfifo(folder / "fifo.py")
    (folder / "zero.py").symlink_to("/dev/zero")
    (folder / "tty.ipynb").symlink_to("/dev/tty")
    (folder / "self.py").symlink_to(folder / "self.py")
    (folder / "a.py").symlink_to(folder / "b.py")
    (folder / "b.py").symlink_to(folder / "a.py")
    (folder / "gone.py").symlink_to(folder / "nowhere")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "folder.py").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made, contextlib.suppress(OSError):
        made.bind(str(folder / "socket.py"))  # a path may be too long for a socket


def test_what_is_no_ordinary_file_is_not_opened(tmp_path):
    special_files(tmp_path)
    status, _, seconds = doctor(tmp_path)
    assert (status, seconds < PATIENCE) == (2, True)  # a folder without Python in it
    (tmp_path / "fine.py").write_text("x = 1\n")
    assert doctor(tmp_path)[:2] == (0, "1 file read, 0 findings.\n")
    ordinary = {"fine.py"}
    special = [path for path in tmp_path.iterdir() if path.name not in ordinary]
    for path in special:
        if path.name != "up":
            assert doctor(path)[0] == 2
            OUTCOMES["refused"] += 1


def test_files_of_the_system_that_have_no_size(tmp_path):
    for name in ("/proc/self/environ", "/proc/self/maps", "/proc/cpuinfo"):
        if os.path.exists(name):
            path = tmp_path / f"{os.path.basename(name)}.py"
            path.symlink_to(name)
            status, text, _ = doctor(path)
            assert (status, "does-not-parse" in text) == (1, True)
            OUTCOMES["one clear line"] += 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read")
def test_what_may_not_be_read_is_said(tmp_path):
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == "root" and folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o755)
    (tmp_path / "open.py").write_text("x = 1\n")
    (tmp_path / "closed.py").write_text("x = 1\n")
    (tmp_path / "closed.py").chmod(0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.py").write_text("x = 1\n")
    (tmp_path / "folder").chmod(0)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    status, text, _ = doctor_process(tmp_path, user=nobody)
    assert status == 2  # the folder could not be read
    assert "closed.py:1:1: error does-not-parse" in text
    assert "Permission denied" in text
    OUTCOMES["one clear line"] += 2


# Licences -----------------------------------------------------------------------------------------

LICENCES = {  # what ships beside the code, and the file that states its licence
    "tutor_bert": "tutor_bert/NOTICE",
    "data/opticks.txt": "data/NOTICE",
    "data/label_history.json": "data/NOTICE",
    "data/label_history_run.json": "data/NOTICE",
    "data/minimal_pairs.json": "data/NOTICE",
    "data/performance.json": "data/NOTICE",
}


def shipped_data():
    """The files of the wheel that are no Python, by their place in the package."""
    return sorted(
        str(path.relative_to(SHIPPED))
        for folder in ("data", "tutor_bert")
        for path in (SHIPPED / folder).iterdir()
        if path.is_file() and path.name not in ("NOTICE", "LICENSE", "README.md")
    )


def test_every_shipped_file_has_its_licence():
    for name in shipped_data():
        home = LICENCES.get(name) or LICENCES.get(name.split("/")[0])
        assert home, f"{name}: name its licence in a NOTICE, and list it in LICENCES"
        text = (SHIPPED / home).read_text("utf-8")
        assert re.search(r"licen[cs]e|public domain|MIT|Apache", text, re.I), home
        assert home.startswith("tutor_bert") or pathlib.Path(name).name in text, name
    metadata = (ROOT / "pyproject.toml").read_text("utf-8")
    for home in {*LICENCES.values()}:
        assert f'"mlmtutor/{home}"' in metadata  # goes into the wheel's licences
    assert "MIT" in (ROOT / "LICENSE").read_text("utf-8")


def test_what_mlmtutor_needs_has_a_licence_that_is_known_and_permissive():
    pytest.importorskip("piplicenses", reason="pip install pip-licenses")
    import dependencies

    found = {name.lower(): licence for name, licence in dependencies.licences().items()}
    needed = [re.match(r"[\w-]+", line)[0] for line in importlib.metadata.requires("mlmtutor")
              if "extra ==" not in line]  # fmt: skip
    assert len(needed) >= 7
    kinds = {name: dependencies.kind(found[name.lower()]) for name in needed}
    assert {name: kind for name, kind in kinds.items() if kind != "permissive"} == {}


def test_an_advisory_is_told_and_no_answer_is_not_no_advisory():
    import dependencies

    assert doctest.testmod(dependencies).failed == 0
    well = {"name": "b", "version": "2", "vulns": []}
    assert dependencies.advisories([well]) == ("0, of 1 packages that the service knows", [])
    assert dependencies.advisories([]) == ("not known: no service answered", [])


def test_the_installed_package_states_its_licences():
    files = importlib.metadata.metadata("mlmtutor").get_all("License-File")
    assert {"LICENSE", "mlmtutor/tutor_bert/NOTICE", "mlmtutor/data/NOTICE"} <= set(files)
