"""What importing every public name adds to the import of torch and of the classes of lessons."""

import subprocess
import sys

CODE = """
import time
import torch
from transformers import AutoTokenizer, BertForMaskedLM, DataCollatorForLanguageModeling
begin = time.perf_counter()
import mlmtutor
for name in mlmtutor.__all__:
    getattr(mlmtutor, name)
print(time.perf_counter() - begin)
"""


def test_import(benchmark):
    times = []

    def fresh_interpreter():
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))

    benchmark.pedantic(fresh_interpreter, rounds=5)
    # The median; the benchmark's own clock counts the interpreter and torch too.
    benchmark.extra_info["seconds"] = sorted(times)[2]
