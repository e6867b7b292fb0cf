"""Write what ``make bench`` measured: ``python tools/performance.py build/bench.json``.

Reads the JSON of pytest-benchmark and writes

- ``mlmtutor/data/performance.json``: machine, versions, date, and for each measurement its median,
  quartiles and rounds, in seconds (and bytes, where memory was measured);
- ``docs/performance.md``: the ratios, next to their goals, and the growth with the size.
"""

import argparse
import importlib.metadata
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from tabulate import tabulate

from tools import atomic

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENTS = ROOT / "mlmtutor" / "data" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"

# what, name of the benchmark, its size, goal for the ratio of the medians
RATIOS = (
    ("training step with `labelled_only_loss`, 64 x 128, 15 %", "test_training_step", 64, 2.4),
    ("head and loss alone, forward and backward, 64 x 128, 15 %", "test_head_and_loss", 64, 9),
    ("`mask_tokens`, 64 x 128", "test_mask_tokens", 64, 2),
    ("`mask_tokens`, whole words, 64 x 128", "test_mask_whole_words", 64, 5),
)
GROWTH = (
    ("training step", "test_training_step", "rows"),
    ("training step", "test_training_step_by_length", "length"),
    ("training step", "test_training_step_by_share", "labelled share"),
    ("head and loss", "test_head_and_loss", "rows"),
    ("masking", "test_mask_tokens", "rows"),
    ("masking, whole words", "test_mask_whole_words", "rows"),
)
WHO = ("mlmtutor", "transformers")


def digest(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep what the page and the lessons need of a file of pytest-benchmark."""
    cpu = raw["machine_info"]["cpu"]
    measurements = []
    for bench in raw["benchmarks"]:
        name, _, parameters = bench["name"].partition("[")
        found = re.fullmatch(r"([\d.]+)-(mlmtutor|transformers)\]", parameters)
        size, who = (float(found[1]), found[2]) if found else (None, None)
        stats = {key: bench["stats"][key] for key in ("q1", "median", "q3", "rounds")}
        measurements.append({"name": name, "who": who, "size": size} | stats | bench["extra_info"])
    return {
        "date": raw["datetime"][:10],
        "machine": f"{cpu.get('brand_raw', 'unknown processor')}, {os.cpu_count()} cores",
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")
        }
        | {"python": raw["machine_info"]["python_version"]},
        "measurements": measurements,
    }


def find(data: dict[str, Any], name: str, who: str | None, size: float | None) -> dict[str, Any]:
    """Return one measurement."""
    for row in data["measurements"]:
        if (row["name"], row["who"], row["size"]) == (name, who, size):
            return dict(row)
    raise SystemExit(f"performance: {name} of {who} at {size} was not measured; run make bench")


def told(value: float, kind: str = "median") -> str:
    """Return seconds or bytes with a unit and three digits."""
    if kind == "bytes":
        return f"{value / 1e6:,.0f} MB"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    raise AssertionError


def exponent(sizes: list[float], values: list[float]) -> float:
    """Return the slope of the least-squares line through the logarithms.

    >>> round(exponent([1, 4, 16], [2, 8, 32]), 6)
    1.0
    """
    xs, ys = [math.log(s) for s in sizes], [math.log(v) for v in values]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def ratio_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the first table."""
    rows = []
    for what, name, size, goal in RATIOS:
        ours, peer = (find(data, name, who, size) for who in WHO)
        ratio = peer["median"] / ours["median"]
        times = [f"{told(m['median'])} (IQR {told(m['q3'] - m['q1'])})" for m in (ours, peer)]
        spread = f"{peer['q1'] / ours['q3']:.2f} to {peer['q3'] / ours['q1']:.2f}"
        reached = "reached" if ratio >= goal else "missed"
        rows.append([what, *times, f"{ratio:.2f} ({spread})", f"{goal} times: {reached}"])
        if "bytes" in ours:
            ratio = ours["bytes"] / peer["bytes"]
            sizes = [told(m["bytes"], "bytes") for m in (ours, peer)]
            goal_told = f"0.50: {'reached' if ratio <= 0.5 else 'missed'}"
            rows.append(["the same, peak memory", *sizes, f"{ratio:.2f} of it", goal_told])
    doctor = find(data, "test_ratio_to_a_training_step", None, None)
    goal = f"2 %: {'reached' if doctor['ratio'] < 0.02 else 'missed'}"
    rows.append(
        ["`diagnose`, 32 x 512", "", "a training step", f"{doctor['ratio']:.3%} of it", goal]
    )
    score = find(data, "test_ratio_to_one_forward_per_token", None, None)
    goal = f"3 times: {'reached' if score['ratio'] >= 3 else 'missed'}"
    what = "`pseudo_log_likelihood`, 23 tokens"
    rows.append([what, "", "one forward a token", f"{score['ratio']:.1f} times as fast", goal])
    imported = find(data, "test_import", None, None)["seconds"]
    goal = f"50 ms: {'reached' if imported <= 0.05 else 'missed'}"
    rows.append(["`import mlmtutor` after torch and transformers", told(imported), "", "", goal])
    return rows


def growth_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the second table: medians (and bytes) by size, and the exponent."""
    rows = []
    for what, name, axis in GROWTH:
        found = [m for m in data["measurements"] if m["name"] == name]
        sizes = sorted({m["size"] for m in found})
        for kind in ("median", "bytes"):
            if kind not in found[0]:
                continue
            for who in WHO:
                values = [find(data, name, who, size)[kind] for size in sizes]
                shown = ", ".join(told(value, kind) for value in values)
                over = f"{axis}: {', '.join(f'{size:g}' for size in sizes)}"
                label = f"{what}, peak memory" if kind == "bytes" else what
                rows.append([label, who, over, shown, f"{exponent(sizes, values):.2f}"])
    return rows


def fewer_multiplications(length: int, share: float) -> tuple[float, float]:
    """By how much the multiplications fall with labelled positions alone: of a step, of the head.

    For each token the body has, in each layer, four products with H x H, two with H x I, and the
    attention to `length` positions; the head has one with H x H and one with H x V.
    """
    config = json.loads((ROOT / "mlmtutor" / "tutor_bert" / "config.json").read_text("utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * hidden * hidden + 2 * hidden * inner + 2 * length * hidden
    body = config["num_hidden_layers"] * layer
    head = hidden * hidden + hidden * config["vocab_size"]
    return (body + head) / (body + share * head), 1 / share


def page(data: dict[str, Any]) -> str:
    """Return the text of docs/performance.md."""
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    step, head = fewer_multiplications(length=128, share=0.15)
    ratios = tabulate(
        ratio_rows(data),
        headers=["what", "mlmtutor", "peer", "ratio", "goal"],
        tablefmt="github",
        disable_numparse=True,
    )
    growth = tabulate(
        growth_rows(data),
        headers=["what", "who", "size", "measured", "exponent"],
        tablefmt="github",
        disable_numparse=True,
    )
    return f"""# Performance

Written by `make bench`, which repeats it. Machine: {data["machine"]}. Versions: {versions}.
Date: {data["date"]}. A training step, and head and loss, use all cores, as torch does by itself;
the rest is timed on one thread. Everything is timed in one run, so look at the ratios: the times
themselves depend on the machine and on what else it does. A time is the median of its rounds, with
the interquartile range (IQR). A ratio is that of the medians: how many times as fast mlmtutor is.
Behind it stand the ratios of the quartiles, the worst for mlmtutor and the best.

## Ratios

The peer is what transformers does with the same input: `model(..., labels=...)`, or
`DataCollatorForLanguageModeling.torch_mask_tokens` with a ready `special_tokens_mask`. Peak memory
is by how much one step raises the resident size of a fresh process. Head and loss are timed as a
part of a step, with the body running before and after them.

{ratios}

With 15 % of the positions labelled, the multiplications of a step of this model fall {step:.1f}
times, those of head and loss {head:.1f} times. What a ratio has beyond that comes from memory that
is not touched, so it depends on the machine's memory more than on its arithmetic.

## Growth

Each at a quarter, once and four times the size (the labelled share: a third, once, 2.7 times). The
exponent is the slope in a log-log plot: 1 is proportional to the size, 0 does not depend on it.
By length, a step has 8 rows; by labelled share, 16 rows of 128 tokens.

{growth}
"""


def main(argv: list[str] | None = None) -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="the file that pytest --benchmark-json wrote")
    args = parser.parse_args(argv)
    data = digest(json.loads(args.json.read_text("utf-8")))
    text = page(data)  # before anything is written, so that a missing measurement changes nothing
    atomic.write(MEASUREMENTS, json.dumps(data, indent=1) + "\n")
    atomic.write(PAGE, text)
    print(text)


if __name__ == "__main__":
    main()
