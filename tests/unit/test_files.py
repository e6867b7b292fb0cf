"""Damaged files, full disks, folders that cannot be written: one clear error, or it works.

And no file is ever half-written: what tools write into the checkout goes through
``tools/atomic.py``, and is whole after an error, a full disk and a kill.
"""

import ast
import collections
import contextlib
import errno
import importlib.util
import json
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock

import atomic
import stored
import nbformat
import numpy as np
import proofs
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

import mlmtutor.model
from mlmtutor import load_tutor
from mlmtutor.model import TUTOR_FOLDER

ROOT = stored.ROOT
PRETRAIN = ROOT / "tools" / "pretrain"
OUTCOMES = collections.Counter()
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
MAY_MOUNT = (
    sys.platform == "linux"
    and not subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
    ).returncode
)
needs_mount = pytest.mark.skipif(not MAY_MOUNT, reason="this user may not mount a tmpfs")


@pytest.fixture(scope="module", autouse=True)
def _counted():
    yield
    figures = {"faults": OUTCOMES.total(), **OUTCOMES, "places": len(PLACES)}
    proofs.record("files", figures)


def told(kinds, call):
    """Do something with a damaged file; return the message, ``None`` where it works."""
    try:
        call()
    except kinds as error:
        OUTCOMES["one clear error"] += 1
        return str(error)
    OUTCOMES["works"] += 1
    return None


def run(code, **environment):
    """Run Python code in a new process with these variables."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env=os.environ | environment,
    )  # fmt: skip


# The weights --------------------------------------------------------------------------------------


class Payload:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


def as_pickle(path, mark):
    path.write_bytes(pickle.dumps(Payload(mark)))


def as_torch_file(path, mark):
    torch.save({"weights": Payload(mark)}, path)


def as_other_architecture(path, mark):
    tiny = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)
    save_file(
        {name: tensor.clone() for name, tensor in GPT2LMHeadModel(tiny).state_dict().items()},
        path, metadata={"format": "pt"},
    )  # fmt: skip


def as_other_size(path, mark):
    sizes = dict.fromkeys(("hidden_size", "num_attention_heads", "intermediate_size"), 4)
    model = BertForMaskedLM(BertConfig(vocab_size=10, num_hidden_layers=2, **sizes))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    folder = path.parent / "other"
    model.save_pretrained(folder)
    shutil.move(folder / "model.safetensors", path)


def as_nothing(path, mark):
    path.write_bytes(b"")


REPLACED = [as_pickle, as_torch_file, as_other_architecture, as_other_size, as_nothing]


@pytest.fixture
def copied_tutor(tmp_path, monkeypatch):
    folder = shutil.copytree(TUTOR_FOLDER, tmp_path / "tutor_bert")
    monkeypatch.setattr(mlmtutor.model, "TUTOR_FOLDER", folder)
    return folder


@pytest.mark.parametrize("replace", REPLACED)
def test_the_embedded_weights_replaced(copied_tutor, tmp_path, replace):
    replace(copied_tutor / "model.safetensors", tmp_path / "mark")
    message = told(ValueError, load_tutor)
    assert "model.safetensors is not the file that was shipped" in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("replace", REPLACED)
def test_the_weights_of_another_checkpoint_replaced(tiny_folder, tmp_path, replace):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    replace(folder / "model.safetensors", tmp_path / "mark")
    message = told((OSError, ValueError), lambda: load_tutor(folder))
    assert "copy" in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", sorted(p.name for p in TUTOR_FOLDER.iterdir()))
def test_each_file_of_the_tutor_cut_short(copied_tutor, name):
    path = copied_tutor / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loaded = name in json.loads((TUTOR_FOLDER / "checksums.json").read_text("utf-8"))
    message = told(ValueError, load_tutor)
    assert (message is not None) == (loaded or name == "checksums.json")
    assert message is None or name in message


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_flipped_bits_of_another_checkpoint(tiny_folder, tmp_path, name):
    """There are no sums to compare with, so it may load; but it does not crash."""
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    whole = (folder / name).read_bytes()
    draw = random.Random(0)
    for _ in range(15):
        data = bytearray(whole)
        data[draw.randrange(min(len(data), 3000))] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(data)
        message = told((OSError, ValueError), lambda: load_tutor(folder))
        assert message is None or str(folder) in message


# Folders that cannot be written -------------------------------------------------------------------

USE = """
import torch, mlmtutor
from mlmtutor import figure
model, tokenizer = mlmtutor.load_tutor()
[best] = mlmtutor.top_predictions(model, tokenizer, "She opened the [MASK].")
print(mlmtutor.alignment(tokenizer, [101, 103, 102], [-100, 7, -100]).scored, len(best))
canvas, axes = plot.figure()
print(len(plot.finish(canvas, alt="a", caption="b").png) > 100)
"""
COMMANDS = """
import contextlib, io
from mlmtutor.__main__ import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main(["env"]) == main(["doctor", "mlmtutor"]) == 0
"""
NOWHERE = "/proc/no-folder"  # not even root can write there


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_no_cache_can_be_written():
    names = ["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "HF_HUB_CACHE",
             "MPLCONFIGDIR", "PYTHONPYCACHEPREFIX"]  # fmt: skip
    done = run(USE, **dict.fromkeys(names, NOWHERE))
    assert (done.returncode, done.stdout) == (0, "1 5\nTrue\n"), done.stderr
    OUTCOMES["works"] += len(names)


@needs_mount
def test_a_read_only_checkout(tmp_path):
    """All that a reader does works; a tool that must write says in one line that it cannot."""
    script = f"""
        mount --bind {ROOT} {ROOT} && mount -o remount,bind,ro {ROOT} || exit 77
        cd {ROOT} && touch notebooks/x 2>/dev/null && exit 78
        python={sys.executable}
        $python -c '{USE}{COMMANDS}' || exit 1
        $python -m pytest -q -p no:cacheprovider --nbval-cell-timeout=120 \
            notebooks/02_split_text_into_tokens.ipynb >/dev/null || exit 4
        $python -c 'import sys; sys.path.append("tools"); import atomic; atomic.write("README.md", "")'
        test $? -eq 1 || exit 5
    """
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", script], capture_output=True, text=True, timeout=400,
        env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this user may not mount the checkout read-only")
    assert (done.returncode, done.stdout) == (0, "1 5\nTrue\n"), done.stderr
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 30] Read-only file system")
    OUTCOMES.update({"works": 4, "one clear error": 1})


# No half-written file -----------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """On a tmpfs of 1 MB, or, where nobody may mount, under a limit of the size of files."""
    code = f"""
import pathlib, resource, sys
sys.path.append({str(ROOT / "tools")!r})
import atomic
path = pathlib.Path({str(tmp_path)!r}) / "file"
atomic.write(path, b"o" * 600_000)
if {not MAY_MOUNT}:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))
try:
    atomic.write(path, b"n" * 900_000)
except OSError as error:
    print(error.errno, path.read_bytes() == b"o" * 600_000, len(list(path.parent.iterdir())))
"""
    command = [sys.executable, "-c", code]
    if MAY_MOUNT:
        mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec "$@"'
        command = [*UNSHARE, "sh", "-c", mount, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = errno.ENOSPC if MAY_MOUNT else errno.EFBIG
    assert done.stdout == f"{wanted} True 1\n", done.stderr
    OUTCOMES["one clear error"] += 1


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    code = f"""
import sys
sys.path.append({str(ROOT / "tools")!r})
import atomic
while True:
    for letter in (b"a", b"b"):
        atomic.write({str(path)!r}, letter * 3_000_000)
"""
    draw, seen = random.Random(0), set()
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code])
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.05, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        data = path.read_bytes()
        assert data in (b"a" * 3_000_000, b"b" * 3_000_000)
        seen.add(data[:1])
        OUTCOMES["works"] += 1
    atomic.write(path, "after")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def tool(name, folder="tools"):
    """Import a tool by its path."""
    path = ROOT / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tool_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_lesson(folder, patch):
    module = tool("lessons")
    source = stored.PATHS[0]
    patch.setattr(module, "NOTEBOOKS", folder)
    patch.setattr(module, "lesson_paths", lambda: [folder / source.name])
    patch.setattr(module, "refresh_generated", lambda *arguments: None)
    patch.setattr(module, "execute", lambda notebook: None)
    nbformat.write(nbformat.read(source, 4), folder / source.name)
    (folder / source.name).write_text((folder / source.name).read_text() + "\n\n")
    patch.setattr(sys, "argv", ["lessons.py"])
    return module.main


def write_performance(folder, patch):
    module = tool("performance")
    stored = json.loads(module.MEASUREMENTS.read_text("utf-8"))
    patch.setattr(module, "digest", lambda raw: stored)
    patch.setattr(module, "MEASUREMENTS", folder / "old.json")
    patch.setattr(module, "PAGE", folder / "old.md")
    (folder / "raw").write_text("{}")
    return lambda: module.main([str(folder / "raw")])


def write_doctor_table(folder, patch):
    module = tool("doctor_table")
    patch.setattr(module, "PAGE", folder / "old.md")
    patch.setattr(module, "measured", lambda rounds, healthy: "measured")
    patch.setattr(sys, "argv", ["doctor_table.py"])
    return module.main


def write_picture(folder, patch):
    module = tool("picture")
    browser = unittest.mock.MagicMock()
    page = browser.return_value.__enter__.return_value.chromium.launch.return_value.new_page
    page.return_value.locator.return_value.screenshot.return_value = b"new picture"
    patch.setattr(module, "sync_playwright", browser)
    patch.setattr(module.shutil, "which", lambda name: name)
    return lambda: module.draw(folder / "old.md")


def write_opticks(folder, patch):
    module = tool("opticks")
    prose = f"{module.FIRST_WORDS} is not to explain the Properties of Light by Hypotheses, but "
    (folder / "edition").write_text(prose + "to propose and prove them by Reason. " * 3 + "End.")
    patch.setattr(module, "TARGET", folder / "old.md")
    patch.setattr(sys, "argv", ["opticks.py", str(folder / "edition")])
    return module.main


def write_label_history(folder, patch):
    module = tool("label_history")
    patch.setattr(module, "HISTORY", folder / "old.json")
    patch.setattr(module, "read_all", lambda cache, releases: [{"version": "1"}])
    patch.setattr(sys, "argv", ["label_history.py"])
    return module.main


def write_releases(folder, patch):
    module = tool("matrix")
    (folder / "docs").mkdir()
    (folder / "docs" / "releases.md").write_text("old")
    patch.setattr(module, "ROOT", folder)
    patch.setattr(module, "BUILD", folder / "build")
    patch.setattr(module, "make_environment", lambda wanted: (None, wanted.replace("*", "9")))
    patch.setattr(module, "run", lambda python, release: (1, 0, 0))
    patch.setattr(sys, "argv", ["matrix.py"])
    return module.main


def write_tokens(folder, patch):
    module = pretrain("rows", patch)
    (folder / "text").mkdir()
    (folder / "text" / "one.txt").write_text("A cat sat on the mat.\n" * 300)
    (folder / "base").mkdir()
    shutil.copy(TUTOR_FOLDER / "vocab.txt", folder / "base")
    os.utime(folder / "old.json", (0, 0))  # older than the text, so made again
    return lambda: module.load_corpus(folder, folder / "old.json")


def write_checkpoint(folder, patch):
    module = pretrain("train", patch)
    tensors = {"model.x": torch.zeros(9)}
    return lambda: module.write_atomically(folder / "old.json", tensors, {"step": 1})


def write_gathered(folder, patch):
    module = pretrain("gather", patch)
    source = unittest.mock.Mock(read=lambda root: ["A cat sat on the mat.", "It was black."])
    return lambda: module.write_text(source, folder, folder / "old.md")


def write_model(folder, patch):
    module = pretrain("export", patch)

    def fill(base, checkpoint, new, before, share):
        for name in (*module.LOADED, "config.json"):
            (new / name).write_text("{}")
        return {}

    patch.setattr(module, "write_model", fill)
    patch.setattr(module, "measure", lambda *arguments: {})
    patch.setattr(module, "card", lambda *arguments: "card")
    (folder / "NOTICE").write_text("notice")
    (folder / module.CHECKPOINT).write_text("")
    (folder / "out").mkdir()
    for name in (*module.LOADED, "README.md", "NOTICE", "checksums.json"):
        (folder / "out" / name).write_text("old")
    return lambda: module.export(folder, folder, folder / "out")


def pretrain(name, patch):
    patch.syspath_prepend(str(PRETRAIN))
    return importlib.import_module(name)


WRITERS = [
    write_lesson, write_performance, write_doctor_table, write_picture, write_opticks,
    write_label_history, write_releases, write_tokens, write_checkpoint, write_gathered,
    write_model,
]  # fmt: skip


def contents(folder):
    """What stands in a folder, but for files that are being written."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".new", ".tmp")
    }


@pytest.mark.parametrize(
    ("writer", "fault"),
    [
        (writer, fault)
        for writer in WRITERS
        for fault in ("before", "in the middle", "at the flush")
        if (writer, fault) != (write_gathered, "in the middle")  # it writes line by line
    ],
)
def test_a_tool_that_fails_leaves_the_old_files(tmp_path, monkeypatch, writer, fault):
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "old.md").write_text("old")
    work = writer(tmp_path, monkeypatch)
    before = contents(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*arguments, **options):
        raise full

    def half(path, data, *rest):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise full

    if fault == "at the flush":
        monkeypatch.setattr(os, "fsync", fail)
    elif fault == "before":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(pathlib.Path, "write_bytes", half)
        monkeypatch.setattr(shutil, "copyfile", lambda a, b: half(b, pathlib.Path(a).read_bytes()))
        for name in ("rows", "train"):
            module = sys.modules.get(name)
            if module is not None:
                monkeypatch.setattr(module, "save_file", lambda t, path, **o: half(path, b"new"))
    with pytest.raises(OSError, match="No space left on device"):
        work()
    monkeypatch.undo()
    after = contents(tmp_path)
    made = {path for path in after if path not in before and "build" not in path.parts}
    assert {path: after[path] for path in before} == before
    assert made == set()
    OUTCOMES["one clear error"] += 1


@pytest.mark.parametrize("writer", WRITERS)
def test_a_tool_that_does_not_fail_writes(tmp_path, monkeypatch, writer):
    """The control of the test above: without the fault something changes."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "old.md").write_text("old")
    work = writer(tmp_path, monkeypatch)
    before = contents(tmp_path)
    work()
    after = contents(tmp_path)
    assert [path for path in before if after[path] != before[path]]
    assert not list(tmp_path.rglob("*.new"))
    assert not list(tmp_path.rglob("*.tmp"))


# Every place that writes --------------------------------------------------------------------------

WRITING = {"write_text", "write_bytes", "save_file", "savefig", "dump", "save", "copy", "copyfile",
           "copytree", "move", "extractall", "to_json", "save_pretrained", "screenshot"}  # fmt: skip
HARMLESS = {
    "tools/atomic.py": "the one that writes",
    "tools/mutants.py": "works in copies of the repository, in build/",
    "tools/explorer.py": "measures; its page is written by docs/conf.py",
    "tools/interrupt.py": "works in a clone, in build/",
    "tools/repeat.py": "works in build/",
    "tools/student.py": "makes build/student afresh each time",
    "tools/slides.py": "makes build/slides afresh each time",
    "tools/matrix.py:make_environment": "an environment in build/, made again after a failure",
    "tools/label_history.py:wheel": "pip, into a cache",
    "tools/pretrain/train.py:write_atomically": "does the same: another name, a flush, a rename",
    "tools/pretrain/export.py:write_json": "into a new folder, copied when all is whole",
    "tools/pretrain/export.py:write_model": "into a new folder, copied when all is whole",
    "tools/pretrain/export.py:export": "into a new folder, copied when all is whole",
    "tools/pretrain/gather.py:fetch": "unpacks; made again unless VERSION, written last, is there",
    "docs/conf.py": "makes docs/lessons and build/site afresh, neither of them committed",
    "mlmtutor/data_parallel.py": "into a temporary folder of the run",
    "mlmtutor/plot.py": "into memory",
}


def writing_places():
    """Yield ``file:function`` and line of each call that writes outside ``atomic.replacement``."""
    for folder in ("mlmtutor", "tools", "tools/pretrain", "docs", "benchmarks", "."):
        for path in sorted((ROOT / folder).glob("*.py")):
            parents = {}
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and writes(node):
                    around, name = node, "module"
                    safe = False
                    while around in parents:
                        around = parents[around]
                        if isinstance(around, ast.With):
                            safe |= "atomic.replacement" in ast.unparse(around.items[0])
                        if isinstance(around, ast.FunctionDef):
                            name = around.name
                    yield f"{path.relative_to(ROOT)}:{name}", node.lineno, safe


def writes(call):
    """Whether a call writes a file, as far as its name and its arguments tell."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if owner == "atomic":
        return False
    if name == "open":
        modes = [*call.args, *(word.value for word in call.keywords)]
        texts = [m.value for m in modes if isinstance(m, ast.Constant) and isinstance(m.value, str)]
        return any(set(text) & set("wax+") and len(text) <= 3 for text in texts)
    if name == "write":
        return owner == "nbformat"
    if name in ("copy", "dump", "save"):
        return owner in ("shutil", "json", "pickle", "torch", "tokenizer", "wordpiece")
    if name == "screenshot":
        return any(word.arg == "path" for word in call.keywords)
    return name in WRITING and not (
        name == "write_text" and not isinstance(call.func, ast.Attribute)
    )


PLACES = list(writing_places())


def test_every_place_that_writes_is_whole_or_says_why_it_does_not_matter():
    direct = {place for place, _, safe in PLACES if not safe}
    unknown = {p for p in direct if p not in HARMLESS and p.partition(":")[0] not in HARMLESS}
    assert unknown == set(), "write with tools/atomic.py, or say in HARMLESS why not"
    assert len(PLACES) > 20


def test_the_search_for_writing_places_finds_them():
    for source, found in [
        ("p.write_text(x)", True), ("open(p, 'w')", True), ("p.open('wb')", True),
        ("open(p)", False), ("p.open(mode='a')", True), ("nbformat.write(n, p)", True),
        ("sys.stdout.write(x)", False), ("json.dump(a, f)", True), ("json.dumps(a)", False),
        ("save_file(t, p)", True), ("page.screenshot(path=p)", True), ("page.screenshot()", False),
        ("atomic.write(p, x)", False), ("shutil.copyfile(a, b)", True),
    ]:  # fmt: skip
        assert writes(ast.parse(source).body[0].value) is found, source


def test_a_run_that_ends_half_way_is_seen_when_the_tokens_are_read(tmp_path, monkeypatch):
    """A cache cut short before this was mended stays: it is an error, not another corpus."""
    work = write_tokens_again(tmp_path, monkeypatch)
    assert told(Exception, work)


def write_tokens_again(folder, patch):
    (folder / "old.json").write_text("old")
    work = write_tokens(folder, patch)
    os.utime(folder / "old.json")
    return work


def test_what_is_saved_can_be_loaded(tmp_path):
    with atomic.replacement(tmp_path / "a.safetensors") as new:
        save_file({"x": torch.arange(3)}, new)
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == np.arange(3).tolist()
