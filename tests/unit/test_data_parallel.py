"""Several processes give the loss and the gradient of one, and none of them is left behind."""

import inspect
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.api import PContext
from transformers import BertForMaskedLM

from mlmtutor import data_parallel
from mlmtutor.lessons.lesson_08 import process_loss, run_data_parallel

IDS = torch.tensor([[2, 5, 4, 7, 3], [2, 4, 7, 3, 0], [2, 4, 4, 4, 3], [2, 6, 7, 4, 3]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
# Rows 0 and 2, of one process, have four labels; rows 1 and 3, of the other, have one.
LABELS = torch.full_like(IDS, -100)
LABELS[0, 2], LABELS[2, 1:4], LABELS[3, 3] = 6, torch.tensor([5, 6, 7]), 8


@pytest.fixture
def here(tiny_folder, tmp_path, monkeypatch):
    """Run with the tiny model, and in a folder that the command line of each process names."""
    monkeypatch.setenv("MLMTUTOR_MODEL", str(tiny_folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def running(folder):
    """The ids of the processes whose command line names ``folder``."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def one_process(folder):
    model = BertForMaskedLM.from_pretrained(folder).eval()
    loss = model(**BATCH, labels=LABELS).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def largest_difference(mine, right):
    assert set(mine) == {name for name in right if right[name] is not None}
    return max((mine[name] - right[name]).abs().max() for name in mine)


def test_two_processes_equal_one_though_the_usual_port_is_taken(here, tiny_folder):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 29500))
            taken.listen()
        except OSError:
            pass  # another program has it, which is as good
        result = run_data_parallel(BATCH, LABELS)
    loss, gradients = one_process(tiny_folder)
    assert abs(result["all"][0] - loss) < 1e-5
    assert largest_difference(result["all"][1], gradients) < 1e-5
    assert abs(result["own"][0] - loss) > 1e-3
    assert largest_difference(result["own"][1], gradients) > 1e-3
    assert not running(here)


@pytest.mark.skipif(not pathlib.Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_an_interrupted_run_leaves_no_process(here):
    program = textwrap.dedent("""
        import signal
        import torch
        from mlmtutor.lessons.lesson_08 import run_data_parallel
        # A shell makes what it starts in the background ignore this signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ids = torch.tensor([[2, 4, 3]] * 2)
        while True:  # a busy machine may send the signal late
            run_data_parallel({"input_ids": ids}, ids)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(running(here)) < 3 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(running(here)) == 3  # the launcher and two
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=60)
    finally:
        child.kill()
    assert "KeyboardInterrupt" in error
    assert not running(here)
    assert not list(here.iterdir())


def test_torchrun_has_the_time_to_kill_a_process_that_does_not_end():
    given = inspect.signature(PContext.close).parameters["timeout"].default
    assert given < data_parallel.PATIENCE


def test_a_run_that_takes_too_long_is_given_up(here):
    with pytest.raises(TimeoutError, match="longer than 1 seconds"):
        run_data_parallel(BATCH, LABELS, timeout=1)
    assert not running(here)


def test_what_a_failed_process_printed_is_shown(here):
    outside = LABELS.masked_fill(LABELS == 8, 99)
    with pytest.raises(RuntimeError, match="99 is among them"):
        run_data_parallel(BATCH, outside)
    assert not running(here)


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match="but is a Tensor"):
        run_data_parallel(IDS, LABELS)
    with pytest.raises(ValueError, match="must hold input_ids"):
        run_data_parallel({"attention_mask": IDS}, LABELS)
    with pytest.raises(ValueError, match="must hold no labels"):
        run_data_parallel({**BATCH, "labels": LABELS}, LABELS)
    with pytest.raises(ValueError, match=r"shape of labels, \(4, 4\)"):
        run_data_parallel(BATCH, LABELS[:, 1:])
    with pytest.raises(ValueError, match="between 1 and 4"):
        run_data_parallel(BATCH, LABELS, processes=5)
    with pytest.raises(TypeError, match="processes must be an int"):
        run_data_parallel(BATCH, LABELS, processes=2.0)
    with pytest.raises(ValueError, match="'own' or 'all', but is 'mean'"):
        process_loss(torch.zeros(1, 2, 3), torch.tensor([[0, 1]]), "mean")


TRAINER = """
import sys, tempfile, torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, Trainer, TrainerCallback, TrainingArguments
from mlmtutor import trainer_loss

class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        parameters = getattr(model, "module", model).named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in parameters}

folder, batch, result = sys.argv[1:]
data = load_file(batch)
model = BertForMaskedLM.from_pretrained(
    folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
)
keep = Keep()
with tempfile.TemporaryDirectory() as scratch:
    options = TrainingArguments(
        scratch, per_device_train_batch_size=1, gradient_accumulation_steps=2, learning_rate=0.0,
        max_steps=1, max_grad_norm=1e9, report_to="none", disable_tqdm=True, use_cpu=True,
        save_strategy="no", logging_steps=1, average_tokens_across_devices=True, seed=0,
    )
    rows = [dict(zip(data, row)) for row in zip(*data.values())]
    trainer = Trainer(
        model, options, train_dataset=rows, callbacks=[keep], compute_loss_func=trainer_loss
    )
    trainer.train()
    keep.gradients["loss"] = torch.tensor(trainer.state.log_history[0]["loss"])
    if trainer.is_world_process_zero():
        save_file(keep.gradients, result)
torch.distributed.destroy_process_group()
"""


def test_trainer_loss_is_right_in_two_processes_that_accumulate(here, tiny_folder):
    from safetensors.torch import save_file

    script, batch, result = (here / name for name in ("script.py", "batch", "result"))
    script.write_text(TRAINER, encoding="utf-8")
    save_file({**BATCH, "labels": LABELS}, batch)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
         "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
         script, tiny_folder, batch, result],
        check=True, capture_output=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    gradients = load_file(result)
    loss, right = one_process(tiny_folder)
    assert gradients.pop("loss").item() == pytest.approx(loss.item(), rel=1e-4)
    assert largest_difference(gradients, right) < 1e-5
