"""No network, no pickle, no code from a checkpoint, no script in a notebook."""

import ast
import base64
import contextlib
import html.parser
import json
import pathlib
import pickle
import re
import socket
import subprocess
import sys

import nbformat
import pytest
import stored
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from mlmtutor import load_tutor
from mlmtutor.model import TUTOR_FOLDER

# --- No network ------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_refuse_sockets_lets_nothing_leave_the_machine(address):
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


def test_refuse_sockets_allows_this_machine():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        socket.create_connection(server.getsockname()).close()


def test_refuse_sockets_holds_in_a_process_that_a_test_starts():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the test refuses a connection to 192.0.2.1" in done.stderr


# --- No pickle, no code from a checkpoint ----------------------------------------------------


def python_sources():
    """Yield the name and the text of each Python file and of the code of each lesson."""
    for folder in ("mlmtutor", "tools", "tests", "benchmarks", "docs"):
        for path in sorted((stored.ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(stored.ROOT)), path.read_text("utf-8")
    for path in stored.PATHS:
        for number, cell in enumerate(stored.code_cells(stored.read(path))):
            yield f"{path.name} code cell {number}", cell.source


def unpickling(source):
    """Return what in the source can run code from a file, or from the network."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            tops = {name.split(".")[0] for name in names}
            found += tops & {"pickle", "dill", "joblib", "cloudpickle"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "torch.hub.load":
                found.append(called)
            harmless = {"allow_pickle": "False", "trust_remote_code": "False",
                        "weights_only": "True"}  # fmt: skip
            for word in node.keywords:
                if ast.unparse(word.value) != harmless.get(word.arg, ast.unparse(word.value)):
                    found.append(word.arg)
    return found


def test_sources_load_no_pickle_and_no_remote_code():
    found = {name: unpickling(source) for name, source in python_sources()}
    assert len(found) > 200
    assert {name for name, what in found.items() if what} == {"tests/unit/test_security.py"}
    for source in ("from joblib import load", "torch.load(path, weights_only=False)", "import dill.source as d",
                   "np.load(p, allow_pickle=True)", "torch.hub.load('a/b', 'c')",
                   "from_pretrained(n, trust_remote_code=True)"):  # fmt: skip
        assert unpickling(source), "the search itself"


class Payload:
    """Leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "vocab.txt"])
def test_load_tutor_runs_no_pickle(tmp_path, name):
    folder, mark = tmp_path / "checkpoint", tmp_path / "mark"
    sizes = dict.fromkeys(("hidden_size", "num_attention_heads", "intermediate_size"), 4)
    BertForMaskedLM(BertConfig(num_hidden_layers=1, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TUTOR_FOLDER).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bert": Payload(mark)}, folder / name)
    with pytest.raises((OSError, ValueError), match="checkpoint"):
        load_tutor(folder)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # the control: the payload works
    assert mark.exists()


def test_load_tutor_runs_no_code_of_a_checkpoint(tmp_path):
    mark = tmp_path / "mark"
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config",
              "AutoModelForMaskedLM": "evil.Model"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises((OSError, ValueError)):
        load_tutor(tmp_path)
    assert not mark.exists()


# --- No script in a notebook -----------------------------------------------------------------

STATIC = {"text/plain", "text/html", "image/png"}
PICTURE = re.compile(r"data:image/(png|svg\+xml);base64,(.*)", re.S)


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
            place = re.sub(r"[\s\0]", "", value or "")
            if name.startswith("on") or place.lower().startswith(("javascript:", "vbscript:")):
                self.found.append(name)
            if name == "src":
                picture = PICTURE.fullmatch(place)
                drawn = base64.b64decode(picture[2]) if picture else b""
                if picture is None or b"<script" in drawn:
                    self.found.append(f"src {place[:40]}")
            if name == "href" and place.lower().startswith("data:"):
                self.found.append("href data:")

    handle_startendtag = handle_starttag


def scripts_in(notebook):
    """Return what in a notebook isn't static."""
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


def test_lessons_hold_no_script():
    assert {path.name: scripts_in(stored.read(path)) for path in stored.PATHS} == {
        path.name: [] for path in stored.PATHS
    }


@pytest.mark.parametrize(
    "text",
    ["<script>x</script>", "<img src=x onerror=alert(1)>", "<a href='java\tscript:x'>a</a>",
     "<p ONCLICK='x'>", "<iframe src='data:text/html,x'>", "<img src='https://a.b/c.png'>",
     "<svg/onload=x>", "<a href='data:text/html,x'>a</a>"],
)  # fmt: skip
def test_lessons_would_be_caught_with_a_script(text):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    assert scripts_in(notebook)
    for data in ({"text/html": text}, {"application/javascript": "x"}):
        output = nbformat.v4.new_output("display_data", data)
        cell = nbformat.v4.new_code_cell("x", outputs=[output])
        assert scripts_in(nbformat.v4.new_notebook(cells=[cell]))
