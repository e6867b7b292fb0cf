"""docs/performance.md is what the stored measurements say."""

import importlib.util
import json

import stored
import pytest

SPEC = importlib.util.spec_from_file_location(
    "performance", stored.ROOT / "tools" / "performance.py"
)
performance = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(performance)
STORED = json.loads(performance.MEASUREMENTS.read_text("utf-8"))


def test_the_page_is_made_from_the_stored_measurements():
    assert performance.page(STORED) == performance.PAGE.read_text("utf-8")


def test_a_goal_that_is_missed_is_called_so():
    slow = json.loads(json.dumps(STORED))
    for row in slow["measurements"]:
        if (row["name"], row["who"]) == ("test_mask_tokens", "mlmtutor"):
            row["median"] = 1.0
    [told] = [row for row in performance.ratio_rows(slow) if row[0] == "`mask_tokens`, 64 x 128"]
    assert told[-1] == "2 times: missed"


def test_a_ratio_stands_between_the_worst_and_the_best_quartiles():
    times = {"mlmtutor": (1.0, 2.0, 4.0), "transformers": (6.0, 8.0, 10.0)}
    data = json.loads(json.dumps(STORED))
    for row in data["measurements"]:
        if row["name"] == "test_mask_tokens":
            row["q1"], row["median"], row["q3"] = times[row["who"]]
    [told] = [row for row in performance.ratio_rows(data) if row[0] == "`mask_tokens`, 64 x 128"]
    assert told[1:4] == ["2 s (IQR 3 s)", "8 s (IQR 4 s)", "4.00 (1.50 to 10.00)"]


def test_a_missing_measurement_is_named():
    with pytest.raises(SystemExit, match="test_training_step of mlmtutor at 64 was not measured"):
        performance.page({**STORED, "measurements": []})
