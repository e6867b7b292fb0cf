"""The reading of the wheels: on the release that is installed, on made-up ones, and refusals."""

import ast
import importlib.metadata
import importlib.util
import json
import sys
import textwrap
import zipfile

import stored
import pytest

SPEC = importlib.util.spec_from_file_location(
    "label_history", stored.ROOT / "tools" / "label_history.py"
)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

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


def test_a_made_up_wheel_is_read_and_not_run(tmp_path):
    path = make_wheel(tmp_path, {"modeling.py": OLD, "configuration_utils.py": ""})
    record = tool.read_wheel(path, "pytorch-pretrained-bert", "0.0.1")
    assert record["arguments"] == ["input_ids", "masked_lm_labels"]
    assert (record["criterion"], record["ignore_index"]) == (
        "CrossEntropyLoss(ignore_index=-1)",
        -1,
    )
    assert (record["unknown_keyword"], record["output"]) == ("TypeError", "Tensor")
    assert record["collator"] is None
    assert record["date"] == "2019-01-02"


def test_a_wheel_that_does_not_tell_its_date_has_none(tmp_path):
    path = tmp_path / "pytorch_pretrained_bert-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {"modeling.py": OLD, "configuration_utils.py": ""}.items():
            info = zipfile.ZipInfo(f"pytorch_pretrained_bert/{name}", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, textwrap.dedent(text))
    assert tool.read_wheel(path, "pytorch-pretrained-bert", "0.0.1")["date"] is None


def test_the_installed_release_is_read_as_it_was_stored(tmp_path):
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


def function(source):
    return ast.parse(textwrap.dedent(source)).body[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("if labels is not None: CrossEntropyLoss(weight=w)", "malformed node"),
        ("if labels is not None: CrossEntropyLoss(reduction='sum')", "an unknown criterion"),
        ("if labels is not None: self.loss_function(labels)", "not enough values"),
        ("loss = CrossEntropyLoss()", "not enough values"),
    ],
)
def test_a_loss_that_is_not_understood_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        tool.read_loss(function(f"def forward(self, labels):\n    {source}"), "labels")


def test_an_output_that_is_not_understood_is_refused():
    forward = function("def forward(self):\n    return {'loss': loss}")
    with pytest.raises(ValueError, match="unknown outputs"):
        tool.read_output(forward, ast.parse(""))


def test_keywords_that_go_elsewhere_are_refused():
    tree = ast.parse("class BertModel:\n    def forward(self): pass")  # takes no keywords
    forward = function("def forward(self, **kwargs):\n    self.bert(input_ids, **kwargs)")
    with pytest.raises(ValueError, match=r"keywords go elsewhere: self\.bert"):
        tool.read_keywords(forward, tree)


def test_the_name_of_a_wheel_that_is_not_read_is_told(tmp_path):
    make_wheel(tmp_path, {"modeling.py": "", "configuration_utils.py": ""})
    with pytest.raises(ValueError, match=r"pytorch-pretrained-bert 0\.0\.1: not read"):
        tool.read_all(tmp_path, [("pytorch-pretrained-bert", "0.0.1")])


def test_a_wheel_in_the_cache_is_not_downloaded_again(tmp_path, monkeypatch):
    made = []
    sources = {"modeling.py": OLD, "configuration_utils.py": ""}

    def download(command, *options):
        made.append(options[-1])
        make_wheel(tmp_path, sources)

    monkeypatch.setattr(tool, "pip", download)
    releases = [("pytorch-pretrained-bert", "0.0.1")]
    first = tool.read_all(tmp_path, releases)
    assert tool.dump(tool.read_all(tmp_path, releases)) == tool.dump(first)
    assert made == ["pytorch-pretrained-bert==0.0.1"]


@pytest.mark.parametrize(
    ("path", "releases"), [(tool.HISTORY, tool.RELEASES), (tool.RUN, tool.RUN_RELEASES)]
)
def test_the_stored_files_are_what_the_tool_writes(path, releases):
    text = path.read_text("utf-8")
    records = json.loads(text)
    assert tool.dump(records) == text
    assert [(r["package"], r["version"]) for r in records] == tool.listed(releases)


def test_check_writes_nothing(tmp_path, monkeypatch, capsys):
    path = tmp_path / "history.json"
    path.write_text("[]", encoding="utf-8")
    monkeypatch.setattr(tool, "HISTORY", path)
    monkeypatch.setattr(tool, "read_all", lambda cache, releases: [{"version": "1"}])
    monkeypatch.setattr(sys, "argv", ["label_history.py", "--check"])
    assert tool.main() == 1
    assert path.read_text("utf-8") == "[]"
    monkeypatch.setattr(sys, "argv", ["label_history.py"])
    assert tool.main() == 0
    assert json.loads(path.read_text("utf-8")) == [{"version": "1"}]
    monkeypatch.setattr(sys, "argv", ["label_history.py", "--check"])
    assert tool.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "history.json: unchanged, 1 releases"


def test_stand_ins_are_empty_and_only_what_is_named(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [tool.Missing(["made_up.part"]), *sys.meta_path])
    package = type(sys)("made_up")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "made_up", package)
    monkeypatch.delitem(sys.modules, "made_up.part", raising=False)
    from made_up.part import Thing

    assert isinstance(Thing("any", argument=1), Thing)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("made_up.party")
