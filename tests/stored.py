"""The lessons as data, for the tests that read them."""

import ast
import pathlib

import nbformat

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def tags(cell):
    return cell.metadata.get("tags", [])


def output_texts(cell):
    """Return every text that a cell has stored, whatever its kind."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append(output.get("text", ""))
        texts += output.get("traceback", [])
        texts += [str(v) for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return texts


def solutions(notebook):
    """Return the functions that the solution cells of a lesson define, by name.

    They see the imports of the lesson and the functions that the solution cells define, and
    nothing else: what the reader's own function can count on.
    """
    imports, functions = [], []
    for cell in code_cells(notebook):
        tree = ast.parse(cell.source)
        imports += [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        if "solution" in tags(cell):
            functions += [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    namespace = {}
    module = ast.Module(body=[*imports, *functions], type_ignores=[])
    exec(compile(module, "solutions", "exec"), namespace)
    return {node.name: namespace[node.name] for node in functions}
