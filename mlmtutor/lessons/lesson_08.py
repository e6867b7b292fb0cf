"""One training step by several processes, with a right and a wrong divisor.

    torchrun --nproc-per-node=2 -m mlmtutor.lessons.lesson_08 BATCH RESULT

``BATCH`` is a safetensors file with ``input_ids``, ``attention_mask`` and ``labels``; each process
takes its share of the rows. ``RESULT`` is written by the first process: for each divisor the loss
and the gradient that the optimizer would see. The script reads which process it is from the
environment that ``torchrun`` sets, so the same lines run on one machine and on many.

:func:`run_data_parallel` starts it from a lesson and leaves no process behind.
"""

import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from mlmtutor._validate import require_ids, require_same_shape
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.loss import _check_loss_input
from mlmtutor.model import load_tutor

TIMEOUT = timedelta(seconds=60)  # a process whose partner has died gives up after this long
PATIENCE = 40  # seconds: torchrun asks its processes to end, and kills them after 30


def process_loss(logits: torch.Tensor, labels: torch.Tensor, divisor: str) -> torch.Tensor:
    """Loss whose gradient this process hands to ``DistributedDataParallel``.

    Args:
        logits: (rows of this process, length, V).
        labels: int64, (rows of this process, length), -100 where nothing is scored.
        divisor: ``"own"``, the number of labels in this process, or ``"all"``, the number in all
            processes divided by the number of processes, because the gradients are averaged.

    Returns:
        A scalar. Its mean over the processes is, for ``"all"``, the loss of the whole batch.

    Raises:
        TypeError: ``logits`` or ``labels`` is no tensor.
        ValueError: a shape or dtype is wrong, a label is outside the vocabulary, or the divisor
            is unknown.

    Example:
        >>> process_loss(torch.zeros(1, 3, 4), torch.tensor([[1, -100, 2]]), "own")
        tensor(1.3863)

    Source: transformers#34242; the gradients are averaged in ``DistributedDataParallel`` of torch.
    """
    if not isinstance(divisor, str) or divisor not in ("own", "all"):
        raise ValueError(f"divisor must be 'own' or 'all', but is {divisor!r}.")
    _check_loss_input(logits, labels, IGNORE_INDEX)
    if labels.dim() != 2:
        raise ValueError(
            f"labels must have the shape (rows, length), but have {tuple(labels.shape)}."
        )
    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    count = (labels != IGNORE_INDEX).sum()
    if divisor == "own":
        return total / count.clamp(min=1)
    dist.all_reduce(count)  # the sum over the processes
    return total * dist.get_world_size() / count.clamp(min=1)


def step(batch_file: str, result_file: str) -> None:
    """Do what the module does, as one of the processes that ``torchrun`` has started."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    rank, processes = dist.get_rank(), dist.get_world_size()
    rows = {name: tensor[rank::processes] for name, tensor in load_file(batch_file).items()}
    labels = rows.pop("labels")

    model = DistributedDataParallel(load_tutor()[0])
    result = {}
    for divisor in ("own", "all"):
        model.zero_grad()
        loss = process_loss(model(**rows).logits, labels, divisor)
        loss.backward()  # averages the gradients of the processes
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        result[f"{divisor}.loss"] = mean / processes
        result |= {
            f"{divisor}.{name}": parameter.grad
            for name, parameter in model.module.named_parameters()
            if parameter.grad is not None
        }
    if rank == 0:
        save_file(result, result_file)
    dist.destroy_process_group()


def run_data_parallel(
    batch: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    *,
    processes: int = 2,
    timeout: float = 120,
) -> dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Run this module in several processes of this machine, and wait for the result.

    The port is one that the system says is free, so a port in use, or a second run at the same
    time, does no harm. When the call is interrupted, takes too long or fails, every process that
    it started is ended first.

    Args:
        batch: the inputs of the model, such as ``input_ids`` and ``attention_mask``; each a
            tensor of shape (batch, length). Dropout is off.
        labels: int64, (batch, length), -100 where nothing is scored.
        processes: how many, from 1 to the number of rows; row ``i`` goes to process
            ``i % processes``.
        timeout: seconds after which the run is given up.

    Returns:
        For each divisor of :func:`process_loss`, ``"own"`` and ``"all"``: the mean of the losses
        of the processes, and the gradient of each parameter, as the optimizer would see it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a shape or dtype is wrong, there are fewer rows than processes, or ``timeout``
            is not above 0.
        RuntimeError: a process failed; the message holds the errors that were printed.
        TimeoutError: the run took longer than ``timeout``.

    Example:
        >>> batch = {"input_ids": torch.tensor([[101, 103, 102], [101, 103, 102]])}
        >>> labels = torch.tensor([[-100, 2748, -100], [-100, 2053, -100]])
        >>> result = run_data_parallel(batch, labels)  # doctest: +SKIP
        >>> loss, gradients = result["all"]  # doctest: +SKIP

    Source: ``torch.distributed.run``; docs.pytorch.org, "torchrun (Elastic Launch)".
    """
    _check(batch, labels, processes, timeout)
    with tempfile.TemporaryDirectory() as folder:
        batch_file, result_file = (str(pathlib.Path(folder, name)) for name in ("in", "out"))
        tensors = {**batch, "labels": labels}
        rows = {name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(rows, batch_file)
        command = [
            sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
            "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
            f"--log-dir={folder}",
            "-m", "mlmtutor.lessons.lesson_08", batch_file, result_file,
        ]  # fmt: skip
        _run(command, pathlib.Path(folder, "log"), timeout)
        saved = load_file(result_file)
    return {
        divisor: (
            saved[f"{divisor}.loss"],
            {
                name.removeprefix(f"{divisor}."): tensor
                for name, tensor in saved.items()
                if name.startswith(f"{divisor}.") and name != f"{divisor}.loss"
            },
        )
        for divisor in ("own", "all")
    }


def _run(command: list[str], log: pathlib.Path, timeout: float) -> None:
    """Run ``command`` and end every process of it, whatever happens."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as output:
        launcher = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            launcher.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the processes took longer than {timeout} seconds.") from None
        finally:
            _end(launcher)
    if launcher.returncode != 0:
        printed = log.read_text(encoding="utf-8", errors="replace").strip()
        errors = re.findall(r"^.*(?:Error|Exception): .+$", printed, re.M)
        found = "\n".join(dict.fromkeys(errors)) or printed[-3000:]
        raise RuntimeError(f"a process ended with exit code {launcher.returncode}:\n{found}")


def _end(launcher: "subprocess.Popen[bytes]") -> None:
    """End the launcher, which ends the processes that it started."""
    if launcher.poll() is not None:
        return
    launcher.send_signal(signal.SIGTERM)  # torchrun passes it on
    try:
        launcher.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()


def _check(
    batch: Mapping[str, torch.Tensor], labels: torch.Tensor, processes: int, timeout: float
) -> None:
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"batch must map names to tensors, but is a {type(batch).__name__}: "
            "pass what the tokenizer returned, or {'input_ids': input_ids}."
        )
    require_ids("labels", labels)
    if "input_ids" not in batch:
        raise ValueError(f"batch must hold input_ids, but holds only {sorted(batch)}.")
    if "labels" in batch:
        raise ValueError("batch must hold no labels, but does: pass them as the second argument.")
    for name, tensor in batch.items():
        if not isinstance(name, str):
            raise TypeError(f"batch must have names as keys, but has {name!r}.")
        require_ids(f"batch[{name!r}]", tensor)
        require_same_shape(
            f"batch[{name!r}]", tensor, "labels", labels.shape, "there is one label each position."
        )
    if isinstance(processes, bool) or not isinstance(processes, int):
        raise TypeError(f"processes must be an int, but is a {type(processes).__name__}.")
    if not 1 <= processes <= len(labels):
        raise ValueError(
            f"processes must be between 1 and {len(labels)}, the number of rows, but is "
            f"{processes}: each process needs a row."
        )
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number, but is a {type(timeout).__name__}.")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a number of seconds above 0, but is {timeout}.")


if __name__ == "__main__":
    step(*sys.argv[1:])
