"""No claim was lost when the lessons were split: each stands in a notebook, or is dropped openly.

``claims.json`` holds every assertion and every stored line of output of the lessons as they were
before; ``dropped/NN.toml`` those that went, with the reason.
"""

import ast
import json
import pathlib
import tomllib

import pytest
import stored

HERE = pathlib.Path(__file__).parent
CLAIMS = json.loads((HERE / "claims.json").read_text("utf-8"))


def claims_of(path):
    found = set()
    for cell in stored.code_cells(stored.read(path)):
        found |= {
            ast.unparse(n) for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assert)
        }
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output.output_type == "error":
                text = f"{output.ename}: {output.evalue}"
            found |= {f"> {line.strip()}" for line in text.splitlines() if line.strip()}
    return found


NOW = {path: claims_of(path) for path in stored.FULL}


@pytest.mark.parametrize("number", CLAIMS)
def test_claims_of_a_lesson_are_kept_or_dropped_with_a_reason(number):
    file = HERE / "dropped" / f"{number}.toml"
    entries = tomllib.loads(file.read_text("utf-8"))["dropped"] if file.exists() else []
    dropped = {claim for entry in entries for claim in entry["claims"]}
    assert all(len(entry["reason"].split()) >= 3 for entry in entries)
    present = set.union(*NOW.values())
    assert [claim for claim in CLAIMS[number] if claim not in present | dropped] == []
    assert sorted(dropped - set(CLAIMS[number])) == [], "never was a claim of this lesson"


def test_assertions_stand_in_one_notebook_each():
    asserted = [claim for claims in NOW.values() for claim in claims if claim.startswith("assert ")]
    assert sorted({claim for claim in asserted if asserted.count(claim) > 1}) == []
