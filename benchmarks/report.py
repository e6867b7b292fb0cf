"""Write what ``make bench`` measured where it is shown.

    .venv/bin/python benchmarks/report.py build/bench.json

This writes ``mlmtutor/data/performance.json``, which the figure of ``notebooks/deeper/08_*.ipynb``
draws, and the part of ``docs/performance.md`` below its mark. Then run that lesson again:
``.venv/bin/python -m tools.lessons notebooks/deeper/08_*.ipynb``.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WHO = ("mlmtutor", "transformers")
MARK = "<!-- below: made by benchmarks/report.py -->\n"
TABLES = {  # the test of each, and what it is called on the page
    "test_training_step": "training step, rows of 128 tokens, 15 % with a label",
    "test_training_step_by_length": "training step, 8 rows, 15 % with a label",
    "test_training_step_by_share": "training step, 16 rows of 128 tokens",
    "test_head_and_loss": "head and loss alone, rows of 128 tokens, 15 % with a label",
    "test_mask_tokens": "`mask_tokens`, rows of 128 tokens",
    "test_mask_whole_words": "`mask_tokens`, whole words, rows of 128 tokens",
}


HEADS = {"rows": "rows", "length": "tokens a row", "share": "share with a label"}


def measured(bench):
    """Return ``{test: {size: {who: benchmark}}}`` of the benchmarks that have a peer."""
    found = {}
    for one in bench["benchmarks"]:
        if one["params"]:
            [size] = (value for name, value in one["params"].items() if name != "who")
            sizes = found.setdefault(one["name"].split("[")[0], {})
            sizes.setdefault(size, dict.fromkeys(WHO))[one["params"]["who"]] = one
    return {name: dict(sorted(sizes.items())) for name, sizes in found.items()}


def where(bench):
    """Return on what kind of machine a run was made."""
    info = bench["machine_info"]
    return f"{info['cpu']['brand_raw']}, {info['cores']} cores"


def steps(bench):
    """Return the content of ``performance.json``: a training step by the share of labels."""
    names = {"all": "transformers", "labelled": "mlmtutor"}
    rows = [
        {
            "share": share,
            **{
                name: {
                    "seconds": round(both[who]["stats"]["median"], 2),
                    "gigabytes": round(both[who]["extra_info"]["bytes"] / 1e9, 2),
                }
                for name, who in names.items()
            },
        }
        for share, both in measured(bench)["test_training_step_by_share"].items()
    ]
    return {
        "date": bench["datetime"][:10],
        "machine": where(bench),
        "versions": bench["machine_info"]["versions"],
        "step": "forward and backward of 16 rows of 128 tokens, median of 7",
        "steps": rows,
    }


def seconds(value):
    """Return a time with three digits and its unit."""
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if value * f >= 1)
    return f"{value * factor:.3g} {unit}"


def table(sizes):
    """Return the rows of one test: each size, both times, their ratio and the memory of both."""
    lines = []
    for size, both in sizes.items():
        mine, its = both["mlmtutor"]["stats"], both["transformers"]["stats"]
        ratio = f"{its['median'] / mine['median']:.2f}"
        if mine["rounds"] > 1:
            ratio += f" ({its['q1'] / mine['q3']:.2f} to {its['q3'] / mine['q1']:.2f})"
        cells = {
            HEADS[next(name for name in both["mlmtutor"]["params"] if name != "who")]: size,
            "mlmtutor": seconds(mine["median"]),
            "transformers": seconds(its["median"]),
            "times as fast": ratio,
        }
        if "bytes" in both["mlmtutor"]["extra_info"]:
            peaks = [f"{one['extra_info']['bytes'] / 1e6:,.0f}" for one in both.values()]
            cells["memory"] = " of ".join(peaks) + " MB"
        lines.append("| " + " | ".join(map(str, cells.values())) + " |")
    return "\n".join(["| " + " | ".join(cells) + " |", "|" + " ---: |" * len(cells), *lines])


def page(bench):
    """Return the part of ``docs/performance.md`` that holds numbers."""
    versions = ", ".join(f"{k} {v}" for k, v in bench["machine_info"]["versions"].items())
    extra = {one["name"]: one["extra_info"] for one in bench["benchmarks"]}
    doctor, imported = extra["test_ratio_to_a_training_step"], extra["test_import"]["seconds"]
    score = extra["test_ratio_to_one_forward_per_token"]["ratio"]
    parts = [f"Measured on {bench['datetime'][:10]} on {where(bench)}, with {versions}."]
    parts.append(
        f"- `diagnose` on 32 rows of 512 tokens takes {doctor['ratio']:.3%} of a training step.\n"
        f"- `pseudo_log_likelihood` of 23 tokens is {score:.1f} times as fast as one call of the "
        f"model for each token.\n"
        f"- `import mlmtutor` after torch and transformers takes {seconds(imported)}."
    )
    found = measured(bench)
    for test, title in TABLES.items():
        parts += [f"## {title[0].upper()}{title[1:]}", table(found[test])]
    return "\n\n".join(parts) + "\n"


def main(path):
    """Write both files from the results of ``make bench``."""
    bench = json.loads(pathlib.Path(path).read_text("utf-8"))
    numbers, data = page(bench), steps(bench)  # both before anything is written
    target = ROOT / "docs" / "performance.md"
    head, _ = target.read_text("utf-8").split(MARK)
    target.write_text(f"{head}{MARK}\n{numbers}", "utf-8")
    target = ROOT / "mlmtutor" / "data" / "performance.json"
    target.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
