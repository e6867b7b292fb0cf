"""Several processes give the loss and the gradient of one."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM

from mlmtutor.lessons.lesson_08 import run_data_parallel

IDS = torch.tensor([[2, 5, 4, 7, 3], [2, 4, 7, 3, 0], [2, 4, 4, 4, 3], [2, 6, 7, 4, 3]])
# Rows 0 and 2, of one process, have four labels; rows 1 and 3, of the other, have one.
LABELS = torch.full_like(IDS, -100)
LABELS[0, 2], LABELS[2, 1:4], LABELS[3, 3] = 6, torch.tensor([5, 6, 7]), 8
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long(), "labels": LABELS}


@pytest.fixture(autouse=True)
def tiny(tiny_folder, monkeypatch):
    monkeypatch.setenv("MLMTUTOR_MODEL", str(tiny_folder))
    return tiny_folder


def one_process(folder, batch):
    model = BertForMaskedLM.from_pretrained(folder).eval()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
def test_run_data_parallel_equals_one_process_when_divided_by_all_labels(tiny):
    empty = {**BATCH, "labels": LABELS.clone()}  # the second process has no label
    empty["labels"][1::2] = -100
    for batch, result in zip((BATCH, empty), run_data_parallel(BATCH, empty), strict=True):
        loss, gradient = one_process(tiny, batch)
        assert abs(result["all"][0] - loss) < 1e-5
        assert (result["all"][1] - gradient).abs().max() < 1e-5
        assert not abs(result["own"][0] - loss) < 1e-3  # of no label it is nan
        assert (result["own"][1] - gradient).abs().max() > 1e-3


def test_run_data_parallel_names_wrong_input():
    with pytest.raises(ValueError, match="must hold labels"):
        run_data_parallel({"input_ids": IDS})
    with pytest.raises(ValueError, match="5 processes can't share 4 rows"):
        run_data_parallel(BATCH, processes=5)


@pytest.mark.slow
def test_run_data_parallel_shows_what_a_process_has_raised():
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="out of bounds"):
        run_data_parallel({**BATCH, "labels": LABELS.masked_fill(LABELS == 8, 99)})


@pytest.mark.slow
def test_run_data_parallel_gives_up_and_leaves_no_process():
    with pytest.raises(TimeoutError, match="longer than 0 seconds"):
        run_data_parallel(BATCH, timeout=0)
    assert not torch.multiprocessing.active_children()


@pytest.mark.slow
def test_trainer_loss_is_right_in_two_processes_that_accumulate(tiny, tmp_path):
    script, batch, result = (tmp_path / name for name in ("script.py", "batch", "result"))
    script.write_text(TRAINER, encoding="utf-8")
    save_file(BATCH, batch)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
         "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
         script, tiny, batch, result],
        check=True, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = load_file(result)
    loss, gradient = one_process(tiny, BATCH)
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    assert (found["gradient"] - gradient).abs().max() < 1e-5


TRAINER = """
import sys, tempfile, torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, Trainer, TrainerCallback, TrainingArguments
from mlmtutor import trainer_loss

class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        parameters = getattr(model, "module", model).parameters()
        self.gradient = torch.cat([p.grad.flatten() for p in parameters])

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
    loss = torch.tensor(trainer.state.log_history[0]["loss"])
    if trainer.is_world_process_zero():
        save_file({"loss": loss, "gradient": keep.gradient}, result)
torch.distributed.destroy_process_group()
"""
