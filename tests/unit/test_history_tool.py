"""The reading of the wheels: the stored records are what it writes, and it refuses to guess."""

import ast
import importlib.metadata
import json
import textwrap
import zipfile

import pytest

from tools import history as tool

OLD = """
    raise RuntimeError("a wheel that is read is not run")

    class BertForMaskedLM:
        def forward(self, input_ids, masked_lm_labels=None):
            if masked_lm_labels is not None:
                loss_fct = CrossEntropyLoss(ignore_index=-1)
                masked_lm_loss = loss_fct(scores, masked_lm_labels)
                return masked_lm_loss
            else:
                return prediction_scores
"""


def make_wheel(folder, sources, package="pytorch_pretrained_bert", version="0.0.1"):
    path = folder / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, text) in enumerate(sources.items(), start=1):
            info = zipfile.ZipInfo(f"{package}/{name}", (2019, 1, number, 0, 0, 0))
            archive.writestr(info, textwrap.dedent(text))
    return path


def test_read_wheel_reads_and_does_not_run(tmp_path):
    path = make_wheel(tmp_path, {"modeling.py": OLD, "configuration_utils.py": ""})
    record = tool.read_wheel(path, "pytorch-pretrained-bert", "0.0.1")
    assert record["arguments"] == ["input_ids", "masked_lm_labels"]
    assert (record["criterion"], record["ignore_index"]) == (
        "CrossEntropyLoss(ignore_index=-1)",
        -1,
    )
    assert (record["unknown_keyword"], record["output"]) == ("TypeError", "Tensor")
    assert (record["collator"], record["date"]) == (None, "2019-01-02")


def test_read_wheel_reads_the_installed_release_as_it_was_stored(tmp_path):
    version = importlib.metadata.version("transformers")
    stored = {r["version"]: r for r in json.loads(tool.HISTORY.read_text("utf-8"))}
    if version not in stored:
        pytest.skip(f"transformers {version} is not in the history")
    distribution = importlib.metadata.distribution("transformers")
    path = tmp_path / f"transformers-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("models/bert/modeling_bert.py", "configuration_utils.py",
                     "data/data_collator.py", "modeling_tf_utils.py"):  # fmt: skip
            file = distribution.locate_file(f"transformers/{name}")
            if file.exists():  # release 5 has no models for TensorFlow
                archive.write(file, f"transformers/{name}")
    read, kept = tool.read_wheel(path, "transformers", version), stored[version]
    for record in (read, kept):
        record.pop("sha256"), record.pop("date")
    assert read == kept


@pytest.mark.parametrize(
    ("read", "source", "message"),
    [
        (tool.read_loss, "if labels is not None: CrossEntropyLoss(weight=w)", "malformed node"),
        (tool.read_loss, "if labels is not None: CrossEntropyLoss(reduction='sum')", "unknown"),
        (tool.read_loss, "loss = CrossEntropyLoss()", "not enough values"),
        (tool.read_output, "return {'loss': loss}", "unknown outputs"),
        (tool.read_keywords, "self.bert(input_ids, **kwargs)", r"go elsewhere: self\.bert"),
    ],
)
def test_read_refuses_what_it_does_not_understand(read, source, message):
    forward = ast.parse(f"def forward(self, labels, **kwargs):\n    {source}").body[0]
    bert = ast.parse("class BertModel:\n    def forward(self): pass")  # takes no keywords
    with pytest.raises(ValueError, match=message):
        read(forward, "labels" if read is tool.read_loss else bert)


def test_read_all_names_the_wheel_that_cannot_be_read(tmp_path):
    make_wheel(tmp_path, {"modeling.py": "", "configuration_utils.py": ""})
    with pytest.raises(ValueError, match=r"pytorch-pretrained-bert 0\.0\.1: not read"):
        tool.read_all(tmp_path, [("pytorch-pretrained-bert", "0.0.1")])


def test_read_names_finds_names_modules_and_keywords(tmp_path):
    sources = {
        "__init__.py": "_import_structure = {'a': ['AdamW']}\nfrom .trainer import Trainer",
        "models/bert/modeling_bert.py": '__all__ = ["BertModel"]',
        "trainer.py": '@deprecate_kwarg("tokenizer")\ndef f(): pass\n'
        'class Trainer:\n    @deprecate_kwarg("tokenizer", new_name="processing_class")\n'
        "    def __init__(self, model, *, processing_class=None): pass",
        "training_args.py": "class TrainingArguments:\n    no_cuda: bool = False",
    }
    names, modules, keywords = tool.read_names(make_wheel(tmp_path, sources, "transformers"))
    assert {"AdamW", "Trainer", "BertModel"} <= names
    assert "models.bert.modeling_bert" in modules
    assert keywords["Trainer"] == {"model", "processing_class", "tokenizer"}
    assert keywords["TrainingArguments"] == {"no_cuda"}


def test_dump_writes_the_stored_file():
    text = tool.HISTORY.read_text("utf-8")
    records = json.loads(text)
    assert tool.dump(records) == text
    assert [(r["package"], r["version"]) for r in records] == tool.listed(tool.RELEASES)
