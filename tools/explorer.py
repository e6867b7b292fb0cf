"""The explorer of the site: what it runs on, the model in a form for browsers, and its page.

    python -m tools.explorer     fetch the npm packages, once; needs npm and a network

``make setup`` calls it. Without npm or a network it prints one line, and the site is built with a
static example in the explorer's place. ``docs/conf.py`` does the rest: ``copy`` exports the model
where it is new, and puts what the page loads into the site; ``explorer``, ``cases`` and
``link_presets`` make what the pages say.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import warnings

from tools import atomic

ROOT = pathlib.Path(__file__).resolve().parent.parent

SOURCE = ROOT / "docs" / "explorer"
PACKAGES = ROOT / ".venv" / "explorer"
MODELS = ROOT / "build" / "explorer"
TUTOR = ROOT / "mlmtutor" / "tutor_bert"
FROM_NPM = [  # of two packages, what a browser loads, and the licence that goes with it
    "@huggingface/transformers/dist/transformers.min.js",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/transformers/LICENSE",
]
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
            "The two npm packages that it runs on were not there when the site was built. With npm "
            "and a network, call `.venv/bin/python -m tools.explorer`, then `make site`."
        )
    if not importlib.util.find_spec("onnx"):
        return (
            "The Python package onnx was not there when the site was built. Call "
            "`.venv/bin/pip install -e '.[site]'`, then `make site`."
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
    import torch

    from mlmtutor import load_tutor

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
    if missing():
        return {"explorer.css": SOURCE / "explorer.css"}
    model = exported()
    folder = f"tutor_bert-{model.stem}"  # a name of its own, so that no browser keeps the old one
    found = {name: SOURCE / name for name in ("explorer.css", "explorer.js", "LICENSES.txt")}
    found |= {pathlib.Path(name).name: packages() / pathlib.Path(name).name for name in FROM_NPM}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        found[f"{folder}/{name}"] = TUTOR / name
    return found | {f"{folder}/onnx/model_quantized.onnx": model}


def loaded():
    """Return the bytes that the button loads: all but the page's own sources and the licences."""
    own = ("explorer.css", "explorer.js", "LICENSE", "LICENSES.txt")
    return sum(file.stat().st_size for name, file in files().items() if name not in own)


def copy(folder):
    """Copy what the page loads into ``folder``, and take away what is there from before."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, file in files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def presets():
    """Return the cases of presets.json."""
    return json.loads((SOURCE / "presets.json").read_text(encoding="utf-8"))


def fragment(state):
    """Return the part of the address after # that stands for a state."""
    parts = {"text": state["text"], "padding": state.get("padding", 0)}
    for name in ("input", "labels"):
        pairs = state.get(name, {}).items()
        parts[name] = ",".join(f"{position}:{token_id}" for position, token_id in pairs)
    return urllib.parse.urlencode({name: value for name, value in parts.items() if value})


def tensors(state, tokenizer):
    """Return input_ids, attention_mask and labels of a state, each of the shape (1, n)."""
    import torch

    batch = tokenizer(state["text"], return_tensors="pt")
    more = state.get("padding", 0)
    ids = torch.nn.functional.pad(batch["input_ids"], (0, more), value=tokenizer.pad_token_id)
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, more))
    labels = torch.full_like(ids, -100)
    for position, token_id in state.get("input", {}).items():
        ids[0, int(position)] = token_id
    for position, token_id in state.get("labels", {}).items():
        labels[0, int(position)] = token_id
    return ids, mask, labels


@functools.cache
def tutor():
    """Return the embedded model and its tokenizer."""
    from mlmtutor import load_tutor

    return load_tutor(TUTOR)


def table(state):
    """Return the alignment table of a state in HTML, computed by the model as it ships."""
    import torch

    import mlmtutor

    model, tokenizer = tutor()
    ids, mask, labels = tensors(state, tokenizer)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    batch = {"input_ids": ids[0], "labels": labels[0]}
    batch |= {"attention_mask": mask[0]} if state.get("padding") else {}
    return mlmtutor.alignment(batch, tokenizer, logits[0])._repr_html_()


def explorer():
    """Return the explorer, or what stands in its place, as a block of raw HTML for MyST."""
    reason = re.sub("`(.+?)`", r"<code>\1</code>", missing())
    example = table(presets()[0]["state"])
    if reason:
        html = f"<p><strong>This build of the site has no explorer.</strong> {reason}</p>{example}"
    else:
        states = {case["id"]: fragment(case["state"]) for case in presets()}
        [folder] = {name.split("/")[0] for name in files() if name.endswith("/config.json")}
        html = (SOURCE / "explorer.html").read_text(encoding="utf-8")
        for name, value in {
            "MODEL": folder,
            "BYTES": str(loaded()),
            "MEGABYTES": weight(),
            "EXAMPLE": example,
            "OPTIONS": "".join(
                f'<option value="{case["id"]}">{case["title"].replace("`", "")}</option>'
                for case in presets()
            ),
            "PRESETS": json.dumps(states).replace("<", "\\u003c"),
        }.items():
            html = html.replace(f"{{{name}}}", value)
    style = '<link rel="stylesheet" href="_static/explorer/explorer.css">'
    return f"```{{raw}} html\n{style}\n{html}\n```"


def weight():
    """Return what the button loads, in megabytes."""
    return f"{loaded() / 1e6:.1f}"


def cases():
    """Return a section for each preset: what to see, the lesson, and the table without scripts."""
    parts = []
    for case in presets():
        number, anchor = case["lesson"][:2], re.sub("[`*]", "", case["section"]).replace(" ", "-")
        where = f"[Lesson {number}: {case['section']}](lessons/{case['lesson']}.ipynb#{anchor})"
        name = case["title"].replace("`", "")
        opens = f'<p class="x-open" hidden><a href="#{case["id"]}">Open “{name}” above</a></p>'
        parts += [
            f"({case['id']})=",
            f"### {case['title']}\n",
            f"{case['see']} {where} proves it.\n",
            "```{raw} html",
            "" if missing() else opens,
            "<details><summary>The table of this case, in full precision</summary>",
            table(case["state"]),
            "</details>",
            "```\n",
        ]
    return "\n".join(parts)


def places(case):
    """Return the sections that lead to a case, as pairs of lesson and heading; its own is first."""
    also = (place.split("#") for place in case.get("also", []))
    return [(case["lesson"], case["section"]), *map(tuple, also)]


def link_presets(stem, notebook):
    """Add to the end of each section of a lesson a line for each case that shows it.

    ``notebook`` is the JSON of the lesson as text, and so is what is returned: the copy for the
    site.
    """
    content = json.loads(notebook)
    for case in presets():
        for heading in (heading for lesson, heading in places(case) if lesson == stem):
            sources = ["".join(cell["source"]) for cell in content["cells"]]
            start = next(i for i, text in enumerate(sources) if text.startswith(f"## {heading}"))
            end = next(
                i
                for i in range(start + 1, len(sources))
                if content["cells"][i]["cell_type"] == "markdown"
                and re.match("##+ ", sources[i])
            )
            line = f"Try it: [{case['title']}](#{case['id']}), in the explorer."
            name = f"{case['id']}-{end}"
            cell = {"cell_type": "markdown", "id": name, "metadata": {}, "source": line}
            content["cells"].insert(end, cell)
    return json.dumps(content)


if __name__ == "__main__":
    if problem := fetch():
        print(
            f"set-up: the site will have no explorer: {problem}. With npm and a network, call "
            ".venv/bin/python -m tools.explorer",
            file=sys.stderr,
        )
