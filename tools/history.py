"""Read, from the released wheels, how BertForMaskedLM took its labels, release by release.

    python -m tools.history --cache FOLDER    write mlmtutor/releases/label_history.json
    python -m tools.history --names           write mlmtutor/doctor/obsolete.toml

Reading downloads each wheel by name with pip, without its dependencies, and parses three of its
files; nothing is installed and nothing of the wheel is run. Wheels in the cache folder are not
downloaded again, so a reading that was stopped goes on where it was; without a cache each wheel
is deleted once it is read. What the parser does not recognise is an error, never a guess.

``--names`` lists what could once be imported from transformers, and the keywords of its Trainer
and collators, that neither the newest wheel nor the installed release has. ``mlmtutor doctor``
reports programs that still use them.
"""

import argparse
import ast
import hashlib
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import zipfile

from tools import atomic

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "mlmtutor"
HISTORY = PACKAGE / "releases" / "label_history.json"
OBSOLETE = PACKAGE / "doctor" / "obsolete.toml"

# Each minor release, by its first wheel that the registry still offers, and patches where
# something changed. All of the first two packages that a lesson could meet.
RELEASES = {
    "pytorch-pretrained-bert": "0.1.1 0.1.2 0.2.0 0.3.0 0.4.0 0.5.0 0.6.0 0.6.2",
    "pytorch-transformers": "0.7.0 1.0.0 1.1.0 1.2.0",
    "transformers": (
        "2.0.0 2.1.0 2.2.0 2.2.2 2.3.0 2.4.0 2.4.1 2.5.0 2.6.0 2.7.0 2.8.0 2.9.0 2.10.0 2.11.0 "
        "3.0.0 3.1.0 3.2.0 3.3.0 3.4.0 3.5.0 3.5.1 "
        "4.0.0 4.1.0 4.2.0 4.3.0 4.4.0 4.5.0 4.6.0 4.7.0 4.8.0 4.9.0 4.10.0 4.11.0 4.12.0 4.13.0 "
        "4.14.1 4.15.0 4.16.0 4.17.0 4.18.0 4.19.0 4.20.0 4.21.0 4.22.0 4.23.0 4.24.0 4.25.1 "
        "4.26.0 4.27.0 4.28.0 4.29.0 4.30.0 4.31.0 4.32.0 4.33.0 4.34.0 4.35.0 4.36.0 4.37.0 "
        "4.38.0 4.39.0 4.40.0 4.41.0 4.42.0 4.43.0 4.44.0 4.45.1 4.46.1 4.47.0 4.48.0 4.49.0 "
        "4.50.0 4.51.0 4.52.1 4.53.0 4.54.0 4.55.0 4.56.0 4.57.1 4.57.6 "
        "5.0.0 5.1.0 5.2.0 5.3.0 5.4.0 5.5.0 5.6.0 5.7.0 5.8.0 5.9.0 5.10.1 5.11.0 5.12.0 5.13.0 "
        "5.14.0 5.15.0 5.16.0 5.17.0 5.18.0 5.19.0 5.20.0 5.21.0 5.22.0 5.23.0 5.24.0"
    ),
}
# Enough releases to say where a name went; the first and the newest matter most.
NAMES_RELEASES = (
    "2.11.0 3.5.1 4.0.0 4.12.0 4.25.1 4.36.0 4.38.0 4.41.0 4.44.0 4.46.3 4.47.0 4.48.0 4.49.0 "
    "4.50.0 4.51.0 4.52.1 4.53.0 4.55.0 4.57.6 5.0.0 5.2.0 5.4.0 5.6.0 5.8.0 5.10.1 5.13.0 5.15.0 "
    "5.17.0 5.18.0 5.20.0 5.22.0 5.24.0"
)
CALLED = {  # the classes whose keywords are compared, by file
    "training_args.py": ["TrainingArguments"],
    "trainer.py": ["Trainer"],
    "data/data_collator.py": ["DataCollatorForLanguageModeling", "DataCollatorForWholeWordMask"],
}
# Families of names that are told by their form (see instead.toml), and what nobody imports
FAMILIES = (
    r"info$|Fast$|TF[A-Z_]|Flax|FLAX_|load_tf|models\.|dummy_|_|"
    r".*_PRETRAINED_\w+_(MAP|LIST)$|.*OnnxConfig$"
)
LABELS = ("labels", "masked_lm_labels")


# Download


def wheel(package, version, folder):
    """Return the path of one wheel in ``folder``, downloaded if it is not there."""
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", "--dest", str(folder), *options]
        subprocess.run([*command, f"{package}=={version}"], check=True, stderr=subprocess.DEVNULL)
    [path] = folder.glob(pattern)
    return path


# Read


def method(tree, class_name, name):
    """Return the definition of one method, or None where there is no such class or method."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == name:
                    return item
    return None


def read_loss(forward, labels):
    """Return (criterion as written, its ignored value) from the branch ``labels is not None``."""
    [branch] = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.If) and ast.unparse(node.test) == f"{labels} is not None"
    ]
    [call] = [
        node
        for node in ast.walk(branch)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "CrossEntropyLoss"
    ]
    options = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
    if call.args or set(options) - {"ignore_index"}:
        raise ValueError(f"an unknown criterion: {ast.unparse(call)}")
    return ast.unparse(call), options.get("ignore_index", -100)  # -100: the default of PyTorch


def read_notices(forward):
    """Return what is said of keywords: a warning, or an assertion, with its text."""
    notices = []
    for node in ast.walk(forward):
        if isinstance(node, ast.If) and (found := keyword_test(node.test, "in")):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn":
                    category = ast.unparse(call.args[1]) if len(call.args) > 1 else "UserWarning"
                    text = ast.literal_eval(call.args[0])
                    notices.append({"keyword": found, "kind": category, "text": text})
        if isinstance(node, ast.Assert) and (found := keyword_test(node.test, "not in")):
            text = ast.literal_eval(node.msg)
            notices.append({"keyword": found, "kind": "AssertionError", "text": text})
    return notices


def keyword_test(test, operator):
    """Return the name in a test such as ``"masked_lm_labels" in kwargs``, else None."""
    match = re.fullmatch(rf"'(\w+)' {operator} kwargs", ast.unparse(test))
    return match and match.group(1)


def read_keywords(forward, tree):
    """Return (``**kwargs`` as written or None, what becomes of a keyword that nobody knows)."""
    if forward.args.kwarg is None:
        return None, "TypeError"
    written = "**" + ast.unparse(forward.args.kwarg)
    texts = [ast.unparse(node) for node in ast.walk(forward) if isinstance(node, ast.expr)]
    if "kwargs == {}" in texts:
        return written, "AssertionError"
    [passed_on] = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "self.bert"
        and any(item.arg is None for item in node.keywords)
    ]
    if texts.count("kwargs") != 1 or method(tree, "BertModel", "forward").args.kwarg is None:
        raise ValueError(f"keywords go elsewhere: {ast.unparse(passed_on)}")
    return written, "dropped"


def read_output(forward, config):
    """Return what a call with labels gives: ``Tensor``, ``tuple`` or ``MaskedLMOutput``."""
    values = [node.value for node in ast.walk(forward) if isinstance(node, ast.Return)]
    made = {v.func.id for v in values if isinstance(v, ast.Call)}
    if made == {"MaskedLMOutput"}:
        return "MaskedLMOutput" if read_return_dict(config) else "tuple"
    if [ast.unparse(v) for v in values] == ["outputs"]:
        return "tuple"
    if [ast.unparse(v) for v in values] == ["masked_lm_loss", "prediction_scores"]:
        return "Tensor"
    raise ValueError(f"unknown outputs: {[ast.unparse(v) for v in values]}")


def read_return_dict(config):
    """Return the default of ``return_dict`` in the configuration."""
    for node in ast.walk(config):
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("kwargs.pop('return_dict',"):
            return ast.literal_eval(node.args[1])
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "return_dict":
            return ast.literal_eval(node.value)
        if isinstance(node, ast.arguments):  # defaults belong to the last of the arguments
            both = zip(node.args[::-1], node.defaults[::-1], strict=False)
            for argument, default in [*both, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
                if argument.arg == "return_dict":
                    return ast.literal_eval(default)
    raise ValueError("the configuration has no return_dict")


def read_collator(tree):
    """Return the key and the ignored value of DataCollatorForLanguageModeling, None without it."""
    names = ("__call__", "torch_call", "collate_batch")
    calls = [m for n in names if (m := method(tree, "DataCollatorForLanguageModeling", n))]
    if not calls:
        return None
    keys, ignored = set(), set()
    for node in (node for call in calls for node in ast.walk(call)):
        if isinstance(node, ast.Dict) and "inputs" in map(ast.unparse, node.values):
            keys |= {ast.literal_eval(key) for key in node.keys} & set(LABELS)
        if isinstance(node, ast.Assign) and "mask_tokens(" in ast.unparse(node.value):
            found = re.search(r"batch\['(\w*labels)'\]", ast.unparse(node.targets[0]))
            keys |= {found.group(1)} if found else set()
    for name in ("mask_tokens", "torch_mask_tokens"):
        maker = method(tree, "DataCollatorForLanguageModeling", name)
        for node in ast.walk(maker) if maker else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("labels[~"):
                ignored.add(ast.literal_eval(node.value))
    [key], [value] = keys, ignored
    return {"key": key, "ignored": value}


def read_tensorflow_notice(tree):
    """Return how the TensorFlow losses speak of the label -1 (the function), None if they do not.

    ``warnings.warn`` also speaks when TensorFlow traces the branch and no label is -1, as
    transformers#15435 explains; ``tf.print`` speaks when the branch is run.
    """
    found = {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and "Using `-1` to mask the loss" in "".join(map(ast.unparse, node.args))
    }
    [function] = found or [None]
    return function


def read_wheel(path, package, version):
    """Return the record of one release."""
    with zipfile.ZipFile(path) as archive:
        top = package.replace("-", "_")
        members = {m.filename.removeprefix(f"{top}/"): m for m in archive.infolist()}

        def parse(*names):
            [name] = [n for n in names if n in members] or [None]
            return name and ast.parse(archive.read(members[name])), name

        bert, file = parse("modeling.py", "modeling_bert.py", "models/bert/modeling_bert.py")
        config, _ = parse("configuration_utils.py")
        collator, _ = parse("data/data_collator.py")
        tensorflow, _ = parse("modeling_tf_utils.py")
        newest = max(member.date_time for member in members.values())
    forward = method(bert, "BertForMaskedLM", "forward")
    arguments = [a.arg for a in forward.args.args][1:]
    [labels] = [a for a in arguments if a in LABELS]
    criterion, ignore_index = read_loss(forward, labels)
    keywords, unknown = read_keywords(forward, bert)
    return {
        "package": package,
        "version": version,
        # pip states no date of release; a wheel states when its newest file was made. Some
        # build tools write a constant of long ago instead, which is no date.
        "date": "{:04}-{:02}-{:02}".format(*newest) if newest > (2018, 11) else None,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "file": f"{top}/{file}",
        "arguments": arguments,
        "keywords": keywords,
        "labels": labels,
        "criterion": criterion,
        "ignore_index": ignore_index,
        "notices": read_notices(forward),
        "unknown_keyword": unknown,
        "output": read_output(forward, config),
        "collator": collator and read_collator(collator),
        "tensorflow_notice": tensorflow and read_tensorflow_notice(tensorflow),
    }


def read_all(cache, releases):
    """Return the records of all releases, downloading what is not in ``cache``."""
    from tqdm import tqdm

    records = []
    for package, version in (bar := tqdm(releases, unit="wheel")):
        bar.set_postfix_str(f"{package} {version}")
        with tempfile.TemporaryDirectory() as folder:
            path = wheel(package, version, cache or pathlib.Path(folder))
            try:
                records.append(read_wheel(path, package, version))
            except Exception as error:
                raise ValueError(f"{package} {version}: not read: {error}") from error
    return records


def read_names(path):
    """Return (what can be imported, modules, keywords by class) of one wheel of transformers."""
    with zipfile.ZipFile(path) as archive:
        inside = [n.removeprefix("transformers/") for n in archive.namelist()]
        files = [n for n in inside if n.endswith(".py")]

        def parse(name):
            return ast.parse(archive.read(f"transformers/{name}"))

        names, keywords = set(), {}
        for node in ast.walk(parse("__init__.py")):
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.List | ast.Call):  # of _import_structure
                items = node.elts if isinstance(node, ast.List) else node.args
                names |= {item.value for item in items if isinstance(item, ast.Constant)}
        for file in (f for f in files if f.startswith("models/")):
            text = archive.read(f"transformers/{file}").decode()
            for listed_names in re.findall(r"^__all__ \+?= \[(.*?)\]", text, re.M | re.S):
                names |= set(re.findall(r"[\"'](\w+)[\"']", listed_names))
        for file, classes in CALLED.items():
            tree = parse(file) if file in files else ast.Module([], [])
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and node.name in classes:
                    keywords[node.name] = read_fields(node)
    modules = {f[:-3].removesuffix("/__init__").replace("/", ".") for f in files}
    return {n for n in names if isinstance(n, str) and n.isidentifier()}, modules, keywords


def read_fields(node):
    """Return the keywords that a class takes: of ``__init__``, or the fields of a dataclass."""
    init = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
    if not init:
        return {f.target.id for f in node.body if isinstance(f, ast.AnnAssign)}
    calls = [c for c in init[0].decorator_list if isinstance(c, ast.Call)]
    renamed = {c.args[0].value for c in calls if ast.unparse(c.func) == "deprecate_kwarg"}
    return renamed | {a.arg for a in (*init[0].args.args[1:], *init[0].args.kwonlyargs)}


def read_gone(cache):
    """Return the text of obsolete.toml: what each release that was read no longer has."""
    import transformers

    versions = NAMES_RELEASES.split()
    read = []
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            path = wheel("transformers", version, cache or pathlib.Path(folder))
            read.append(read_names(path))

    def gone(sets, still):
        found = {}
        for name in sorted(set().union(*sets) - sets[-1]):
            last = max(i for i, names in enumerate(sets) if name in names)
            if not re.match(FAMILIES, name) and not still(name):
                found.setdefault(versions[last + 1], []).append(name)
        return found

    def module_is_there(name):
        skipped = (
            r"another_try|try$|filep?$|convert_|commands|kernels|utils\.dummy|models\.deprecated|"
            r".*(modeling|tokenization)_(tf|flax)_"
        )
        try:
            return re.match(skipped, name) or importlib.util.find_spec(f"transformers.{name}")
        except ModuleNotFoundError:  # of the package that it was in
            return False

    def table(title, found):
        text = f"\n[{title}]\n"
        for version in (v for v in versions if v in found):
            names = textwrap.fill(" ".join(found[version]), 99, break_long_words=False)
            text += f'"{version}" = """{names}"""\n'
        return text

    parts = [
        "# What transformers no longer has, under the first release without it that was read.\n"
        f"# Written by: python -m tools.history --names. Read: {versions[0]} to {versions[-1]}.\n",
        table("names", gone([names for names, _, _ in read], lambda n: hasattr(transformers, n))),
        table("modules", gone([modules for _, modules, _ in read], module_is_there)),
    ]
    for name in (name for classes in CALLED.values() for name in classes):
        sets = [keywords[name] for _, _, keywords in read if name in keywords]
        if len(sets) == len(read):
            parts.append(table(f"keywords.{name}", gone(sets, lambda n: False)))
    return "".join(parts)


# Write


def dump(records):
    """Return the text of a data file: one record a line, so that a change is one line."""
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def listed(releases):
    """Return the pairs (package, version) of a table of releases."""
    return [(package, v) for package, text in releases.items() for v in text.split()]


def main():
    """Write one of the data files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=pathlib.Path, help="keep the wheels in this folder")
    parser.add_argument("--names", action="store_true", help="list what is gone")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    if options.names:
        path, text = OBSOLETE, read_gone(options.cache)
    else:
        path, text = HISTORY, dump(read_all(options.cache, listed(RELEASES)))
    atomic.write(path, text)


if __name__ == "__main__":
    main()
