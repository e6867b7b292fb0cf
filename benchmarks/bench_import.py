"""What ``import mlmtutor`` adds to the import of torch and of the classes that lessons use."""

import subprocess
import sys

CODE = """
import time
import torch
from transformers import AutoTokenizer, BertForMaskedLM, DataCollatorForLanguageModeling
begin = time.perf_counter()
import mlmtutor
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
