"""What the explorer of the site runs on: packages, the model for browsers, stored numbers.

    python -m tools.explorer     fetch the npm packages, once; needs npm and a network

``tools/setup.sh`` calls it. Without npm or a network it prints one line, and the explorer of the
site knows its cases and no other sentence. ``docs/conf.py`` calls ``copy``, which exports the
model where it is new, and puts what the page loads into the site; ``docs/explorer_page.py`` makes
the page.
"""

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

import torch

from mlmtutor import load_tutor
from tools import atomic

ROOT = pathlib.Path(__file__).resolve().parent.parent

SOURCE = ROOT / "docs" / "explorer"
PACKAGES = ROOT / ".venv" / "explorer"
MODELS = ROOT / "build" / "explorer"
TUTOR = ROOT / "mlmtutor" / "tutor_bert"
OWN = ("explorer.css", "explorer.js", "worker.js", "LICENSES.txt")
FROM_NPM = [  # of two packages, what a browser loads, and the licence that goes with it
    "@huggingface/transformers/dist/transformers.min.js",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/transformers/LICENSE",
]
FIRST, OTHERS = 2000, 200  # so many -log p of a position are stored: of the first case, of others
BLOCK = 32  # so many neighbouring weights share one scale; a smaller block is more exact


def packages():
    """Return the folder of the npm files that package-lock.json pins, fetched or not."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    return PACKAGES / hashlib.sha256(lock).hexdigest()[:12]


def fetch():
    """Fetch the npm packages, checked against their integrity hashes; returns what went wrong."""
    if packages().is_dir():
        return ""
    npm = shutil.which("npm")
    if not npm:
        return "there is no npm on the path"
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PACKAGES) as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            return " ".join(["npm ci failed.", *errors[:1]])
        kept = pathlib.Path(folder, "kept")
        kept.mkdir()
        for file in FROM_NPM:
            shutil.copy(pathlib.Path(folder, "node_modules", file), kept)
        kept.rename(packages())
    return ""


def missing():
    """Return why this build of the site has no explorer; empty where it has one."""
    if not packages().is_dir():
        return (
            "This build of the site has no model: two npm packages were not there. With npm and a "
            "network, call .venv/bin/python -m tools.explorer, then make site."
        )
    if not importlib.util.find_spec("onnx"):
        return (
            "This build of the site has no model: the Python package onnx was not there. Call "
            ".venv/bin/pip install -e '.[site]', then make site."
        )
    return ""


def exported():
    """Return the embedded model as a file for browsers; made once for these weights."""
    parts = [(TUTOR / "checksums.json").read_text(encoding="utf-8"), inspect.getsource(export)]
    parts += [str(BLOCK), *(importlib.metadata.version(name) for name in ("torch", "onnx"))]
    path = MODELS / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}.onnx"
    if not path.is_file():
        MODELS.mkdir(parents=True, exist_ok=True)
        with atomic.replacement(path) as new:
            export(new)
    return path


def export(path):
    """Write the embedded model to ``path`` as ONNX, with its large matrices in 8 bits.

    The arithmetic stays in float32: only what is stored and loaded is rounded. Each block of 32
    weights that meet the same output has a scale of its own. The matrix that embeds the tokens
    is stored once, although the head multiplies by it as well. What multiplies is stored as it is
    multiplied by, so that a browser need not turn it round.
    """

    class EightBits(torch.nn.Module):
        def __init__(self, matrix):
            super().__init__()
            self.shape = matrix.shape
            blocks = matrix.detach().reshape(-1, BLOCK, matrix.shape[1])
            scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            self.register_buffer("scale", scale)
            self.register_buffer("rounded", (blocks / scale).round().to(torch.int8))

        def forward(self):
            return (self.rounded.float() * self.scale).reshape(self.shape)

    class Dense(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.matrix, self.bias = EightBits(linear.weight.T), linear.bias

        def forward(self, states):
            return states @ self.matrix() + self.bias

    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.bert, self.head = model.bert, model.cls.predictions
            self.tied = EightBits(model.get_input_embeddings().weight.T)

        def forward(self, input_ids, attention_mask):
            tied = self.tied()
            embedded = tied[:, input_ids].permute(1, 2, 0)
            states = self.bert(inputs_embeds=embedded, attention_mask=attention_mask)
            return self.head.transform(states.last_hidden_state) @ tied + self.head.bias

    model, tokenizer = load_tutor(TUTOR)
    model.requires_grad_(False)
    model.set_attn_implementation("eager")
    logits = Logits(model)
    del model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Dense(child))
    batch = tokenizer(["two rows", "of two lengths"], padding=True, return_tensors="pt")
    axes = {0: "batch", 1: "length"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one
        torch.onnx.export(
            logits.eval(),
            (batch["input_ids"], batch["attention_mask"]),
            str(path),
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,  # it would store float32
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes=dict.fromkeys(["input_ids", "attention_mask", "logits"], axes),
        )


@functools.cache
def files():
    """Return what the page loads: the name in its folder on the site -> the file to copy."""
    own = {name: SOURCE / name for name in OWN}
    if missing():
        return own
    model = exported()
    folder = f"tutor_bert-{model.stem}"  # a name of its own, so that no browser keeps the old one
    found = own | {
        pathlib.Path(name).name: packages() / pathlib.Path(name).name for name in FROM_NPM
    }
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        found[f"{folder}/{name}"] = TUTOR / name
    return found | {f"{folder}/onnx/model_quantized.onnx": model}


def loaded():
    """Return the bytes that the button loads: all but what the page has and the licences."""
    had = {*OWN, "LICENSE"} - {"worker.js"}
    return sum(file.stat().st_size for name, file in files().items() if name not in had)


def copy(folder):
    """Copy what the page loads into ``folder``, and take away what is there from before."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, file in files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (folder / "numbers.js").write_text(f"const NUMBERS = {json.dumps(numbers())};\n", "utf-8")


def presets():
    """Return the cases of presets.json."""
    return json.loads((SOURCE / "presets.json").read_text(encoding="utf-8"))


def tour():
    """Return the steps of tour.json, each with its state written out."""
    steps = json.loads((SOURCE / "tour.json").read_text(encoding="utf-8"))
    states = {case["id"]: case["state"] for case in presets()}
    return [{"state": states.get(step.get("case")), **step} for step in steps]


@functools.cache
def tutor():
    """Return the embedded model and its tokenizer."""
    return load_tutor(TUTOR)


@functools.cache
def logits(ids, mask):
    """Return the logits (n, V) of the model as it ships for one row."""
    model, _ = tutor()
    with torch.no_grad():
        return model(torch.tensor([ids]), attention_mask=torch.tensor([mask])).logits[0]


def rows(state):
    """Return ids, mask and labels of a state as tuples, and the logits."""
    tokenizer = tutor()[1]
    batch, padding = tokenizer(state["text"]), state.get("padding", 0)
    ids = batch["input_ids"] + [tokenizer.pad_token_id] * padding
    mask = batch["attention_mask"] + [0] * padding
    labels = [-100] * len(ids)
    for row, name in ((ids, "input"), (labels, "labels")):
        for position, token_id in state.get(name, {}).items():
            row[int(position)] = token_id
    ids, mask, labels = map(tuple, (ids, mask, labels))
    return ids, mask, labels, logits(ids, mask)


def numbers():
    """Return what the cases and the tour need without the model.

    ``texts``: a sentence and its ids. ``inputs``: what the model reads (ids, then mask) and, for
    each position, ids and -log p in thousandths as base64 of 16-bit numbers, the most probable
    first. Every label of a case is among them. ``names``: the tokens of all these ids.
    """
    _, tokenizer = tutor()
    texts, inputs, labelled = {}, {}, {}
    for step in [*presets(), *tour()]:
        ids, mask, labels, _ = rows(step["state"])
        texts[step["state"]["text"]] = original = tokenizer(step["state"]["text"])["input_ids"]
        known = labelled.setdefault((ids, mask), {*tokenizer.all_special_ids})
        known |= {*ids, *original, *labels} - {-100}
    used = set()
    for number, ((ids, mask), known) in enumerate(labelled.items()):
        costs, positions = -logits(ids, mask).log_softmax(-1), []
        for row in costs:
            best = row.topk(OTHERS if number else FIRST, largest=False).indices.tolist()
            best += sorted(known - {*best}, key=row.tolist().__getitem__)
            thousandths = (1000 * row[best]).round().int().tolist()
            positions.append([packed(best), packed(thousandths)])
            used |= {*best}
        inputs[",".join(map(str, ids + mask))] = positions
    names = [packed(sorted(used)), " ".join(tokenizer.convert_ids_to_tokens(sorted(used)))]
    return {"texts": [*texts.items()], "inputs": [*inputs.items()], "names": names}


def packed(values):
    """Return numbers below 65,536 as base64 of two bytes each, the lower first."""
    return base64.b64encode(b"".join(v.to_bytes(2, "little") for v in values)).decode()


if __name__ == "__main__":
    if problem := fetch():
        print(
            f"set-up: the site will have no explorer: {problem}. With npm and a network, call "
            ".venv/bin/python -m tools.explorer",
            file=sys.stderr,
        )
