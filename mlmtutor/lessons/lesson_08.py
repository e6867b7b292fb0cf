"""Lesson 08, keep the loss right at scale: its exercises, its figures, and a step in processes."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mlmtutor.figure import COLOURS, TEXT, Figure, box, drawing, figure, finish
from mlmtutor.labels import IGNORE_INDEX
from mlmtutor.lessons.exercise import Exercise, WrongAnswer, exercise
from mlmtutor.lessons.lesson_06 import quiet_trainer
from mlmtutor.model import load_tutor

SENTENCES = """It rained.
He drank a cup of tea.
She opened the door and walked into the room.
The train was late, so we sat in a small room and talked about the war.
Birds sing.
The old man walked down to the river and looked at the water for a long time.
They sold the house.
He had never seen so many people in one place, and he did not know what to say.""".splitlines()

# One step, and its gradient


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """Return the gradients of all parameters as one vector, and forget them."""
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return gradient


def trainer_step(
    model: Any, batch: Mapping[str, torch.Tensor], size: int, steps: int, loss_func: Any = None
) -> tuple[float, torch.Tensor]:
    """Have Trainer take one step on a batch: ``steps`` micro-batches of ``size`` rows, in order.

    The learning rate is 0, so the model keeps its weights. Returns the loss that Trainer reports,
    and the gradient that the optimizer is given.
    """
    import transformers

    rows: Any = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]

    class Keep(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.gradient = flat_gradient(model)

    keep = Keep()
    settings: dict[str, Any] = {"learning_rate": 0.0, "max_steps": 1, "max_grad_norm": 1e9}
    settings |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
    given = {"train_dataset": rows, "compute_loss_func": loss_func, "callbacks": [keep]}
    trainer = quiet_trainer(model, settings=settings, **given)
    trainer.get_train_dataloader = lambda: DataLoader(rows, batch_size=size)  # in order
    return trainer.train().training_loss, keep.gradient


# Several processes


Step = dict[str, tuple[torch.Tensor, torch.Tensor]]


def process_loss(logits: torch.Tensor, labels: torch.Tensor, divisor: str) -> torch.Tensor:
    """Return the loss that one process calls ``backward()`` on; gradients are averaged later.

    ``divisor`` is ``"own"``, the number of labels in this process, or ``"all"``, the number in all
    processes divided by the number of processes.
    """
    logits, labels = logits.flatten(0, 1), labels.flatten()
    if divisor == "own":
        return cross_entropy(logits, labels)
    count = (labels != IGNORE_INDEX).sum()
    dist.all_reduce(count)  # now it's the sum over all processes
    total = cross_entropy(logits, labels, reduction="sum")
    return total / count * dist.get_world_size()


def run_data_parallel(
    *batches: Mapping[str, torch.Tensor], processes: int = 2, timeout: float = 300
) -> list[Step]:
    """Take a step on each batch in several processes of this machine.

    Row ``i`` of each batch goes to process ``i % processes``; after ``timeout`` seconds the
    processes are ended with a TimeoutError.

    Returns:
        For each batch, and for each divisor of :func:`process_loss`, the mean of the losses of the
        processes, and all gradients in one vector, as the optimizer would see them.
    """
    for batch in batches:
        if "labels" not in batch:
            raise ValueError(f"batch must hold labels, but holds only {sorted(batch)}.")
        if not 1 <= processes <= len(batch["labels"]):
            raise ValueError(f"{processes} processes can't share {len(batch['labels'])} rows.")
    with tempfile.TemporaryDirectory() as folder:
        torch.save([dict(batch) for batch in batches], os.path.join(folder, "batches"))
        running: Any = spawn(_work, (processes, folder), processes, join=False, daemon=True)
        end = time.monotonic() + timeout
        try:
            while not running.join(timeout=1):  # raises what a process has raised
                if time.monotonic() > end:
                    raise TimeoutError(f"the processes took longer than {timeout} seconds.")
        finally:
            for process in running.processes:
                process.kill()
                process.join()
        results: list[Step] = torch.load(os.path.join(folder, "results"))
        return results


def _work(rank: int, processes: int, folder: str) -> None:
    """Be process number ``rank``; the first one writes the results."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the libraries below print from C
        os.dup2(quiet, stream)
    torch.set_num_threads(1)
    meet, patience = f"file://{folder}/meet", timedelta(seconds=60)
    dist.init_process_group("gloo", meet, patience, rank=rank, world_size=processes)
    model = DistributedDataParallel(load_tutor()[0])
    batches = torch.load(os.path.join(folder, "batches"))
    results = [_step(model, batch, rank, processes) for batch in batches]
    if rank == 0:
        torch.save(results, os.path.join(folder, "results"))
    dist.destroy_process_group()


def _step(model: Any, batch: Any, rank: int, processes: int) -> Step:
    """Take the rows of one process, and return loss and gradients after the averaging."""
    mine = {name: tensor[rank::processes] for name, tensor in batch.items()}
    labels = mine.pop("labels")
    result = {}
    for divisor in ("own", "all"):
        loss = process_loss(model(**mine).logits, labels, divisor)
        loss.backward()  # averages the gradients of the processes
        mean = loss.detach()
        dist.all_reduce(mean)
        result[divisor] = (mean / processes, flat_gradient(model.module))
    return result


# Exercise 1


def _parts():
    """Parts with 4, 1 and no label of a batch that has five, and one with 2 of eight."""
    made, _ = torch.Generator().manual_seed(8), IGNORE_INDEX
    return [
        ((3 * torch.randn(len(y), V, generator=made)).requires_grad_(), torch.tensor(y), items)
        for V, items, y in (
            (6, 5, [5, _, 2, 0, _, _, 1]),
            (6, 5, [_, _, _, _, 3, _, _]),
            (6, 5, [_, _, _, _, _, _, _]),
            (11, 8, [_, 10, _, _, _, _, _, 0, _]),
        )
    ]


class _WithGradient(Exercise):
    def judge(self, answer: Any) -> str:
        """Judge the values, and then whether ``backward()`` can start from them."""
        said = super().judge(answer)
        found = answer(*self.cases()[0])
        if not isinstance(found, torch.Tensor) or not found.requires_grad:
            raise WrongAnswer(NO_GRADIENT)
        return said


NO_GRADIENT = (
    "Your function returns a number without a gradient. Return the tensor, without "
    "`.item()` or `float`: backward() starts from it."
)


def _part_loss(logits, labels, num_items_in_batch=1):
    """part_loss(logits, labels, num_items_in_batch): sum over the labels, divided once."""
    return cross_entropy(logits, labels, reduction="sum") / num_items_in_batch


check_part_loss = _WithGradient(
    _part_loss,
    _parts,
    lambda *_: (
        "Parts of 4, 1 and 0 labels add up to "
        f"{sum(_part_loss(*case).detach() for case in _parts()[:3]):.4f}, the loss of all five."
    ),
    divisor=lambda logits, labels, num_items_in_batch: num_items_in_batch,
)


check_part_loss.wrong |= {
    "A part without a label gives nan, and so does the whole step. Its sum is 0: do not take the "
    "mean and multiply it again.":
        lambda x, y, items: cross_entropy(x, y) * (y != IGNORE_INDEX).sum() / items,
    "Each part is divided by its own number of labels, so the label of a part that has one weighs "
    "as much as four in another. Divide the sum by num_items_in_batch.":
        lambda x, y, items: cross_entropy(x, y),
    "That is the sum of the losses. Nothing divides it, so the gradient grows with the batch: "
    "divide by num_items_in_batch.": lambda x, y, items: _part_loss(x, y),
    "That is divided twice: the mean of the part has been divided by the labels of the part. Start "
    "from the sum.": lambda x, y, items: cross_entropy(x, y) / items,
    "That is divided by the number of all positions. Ignored ones do not count.":
        lambda x, y, items: _part_loss(x, y, len(y)),
    "That is divided by the number of parts, which num_items_in_batch is not.":
        lambda x, y, items: _part_loss(x, y, 3),
    "That scores the ignored positions as well. Leave -100 out.":
        lambda x, y, items: _part_loss(x, y.clamp(min=0), items),
    "Your function returns a loss for each position. backward() needs one number: add them up.":
        lambda x, y, items: cross_entropy(x, y, reduction="none") / items,
    NO_GRADIENT: lambda x, y, items: _part_loss(x, y, items).item(),
}  # fmt: skip


# Exercise 2


def _shares():
    """Three processes with 5, 4 and 10 labels, and two with 2 and 7."""
    three = [(torch.tensor(t), [5, 4, 10], rank) for rank, t in enumerate((9.0, 22.0, 7.0))]
    return three + [(torch.tensor(t), [2, 7], rank) for rank, t in enumerate((4.0, 11.0))]


@exercise(
    cases=_shares,
    says="Averaged over three processes: 38 / 19 = 2.00, the mean of nineteen labels.",
    divisor=lambda total, counts, rank: sum(counts),
)
def check_process_share(total, counts, rank):
    """process_share(total, counts, rank): what process rank calls backward() on."""
    return total * len(counts) / sum(counts)


check_process_share.wrong |= {
    "Each process divides by its own count, and the average is a mean of means: divide by the "
    "labels of all processes.": lambda total, counts, rank: total / counts[rank],
    "The gradients are averaged afterwards, so your result is divided by the number of processes "
    "once more. Multiply by it first.": lambda total, counts, rank: total / sum(counts),
    "That is the sum of the losses of each process. It must be divided by a number of labels.":
        lambda total, counts, rank: total,
    "You multiply by the number of processes, and divide by the own count. Divide by the count of "
    "all.": lambda total, counts, rank: total * len(counts) / counts[rank],
    "That is divided by the number of processes, twice in the end. Divide by labels, and multiply "
    "by the number of processes.": lambda total, counts, rank: total / len(counts),
    "That weighs each sum by its count. A sum has grown with its count already; only a mean needs "
    "the weight.": lambda total, counts, rank: total * counts[rank] / sum(counts),
    "That divides by the largest count, not by all.":
        lambda total, counts, rank: total * len(counts) / max(counts),
    "That is what the average should be, but each process must scale its own sum.":
        lambda total, counts, rank: 2.0,
}  # fmt: skip


# Figures


def label_weights(counts: Sequence[int]) -> Figure:
    """F11: the labels of some micro-batches as blocks, as wide as they weigh: right and wrong."""
    canvas, axes = drawing(7.2, 2.5)
    total, parts = sum(counts), len(counts)
    rows = (
        ("mean over labels", [1 / total] * parts, "right", 0.0),
        ("mean of the means", [1 / (parts * count) for count in counts], "wrong", 1.3),
    )
    told = []
    for name, weights, meaning, y in rows:
        axes.text(0, y + 0.15, name, va="center", fontsize=14, weight="bold",
                  color=COLOURS[meaning])  # fmt: skip
        x, said = 0.0, []
        for number, (count, weight) in enumerate(zip(counts, weights, strict=True)):
            fill, colour = ((COLOURS["scored"], "white"), ("#A6CEE3", TEXT))[number % 2]
            words, width = f"1/{round(1 / weight)}", 7.2 * weight
            for _ in range(count):
                box(axes, x, y + 0.35, words, width=width, height=0.6, fill=fill, colour=colour,
                    fontsize=14)  # fmt: skip
                x += width
            said.append(f"{count} x {words}")
        told.append(f"{name.capitalize()}: {', '.join(said)}.")
    return finish(canvas, alt=f"Blocks as wide as the weight of each label. {' '.join(told)}",
        caption="One block for each label, as wide as its weight in the loss: dark the first "
        "micro-batch, light the second.")  # fmt: skip


def labelled_only_cost(stored: Mapping[str, Any]) -> Figure:
    """Draw time and memory of a training step, with logits everywhere and at labels alone."""
    canvas, panels = figure(1, 2, size=(7.2, 3.3))
    steps, told = stored["steps"], []
    shares = [step["share"] for step in steps]
    bold = {"fontsize": 13, "weight": "bold"}
    for axes, key, name in zip(panels, ("seconds", "gigabytes"), ("time", "memory"), strict=True):
        dense, few = ([step[who][key] for step in steps] for who in ("all", "labelled"))
        for values, words, meaning in (dense, "all positions", "wrong"), (few, "labelled", "right"):
            axes.plot(shares, values, "o-", color=COLOURS[meaning])
            side = 0.06 if values is dense else -0.14
            axes.text(0.12, values[1] + side * max(dense), words, color=COLOURS[meaning], **bold)
        for share, high, low in zip(shares, dense, few, strict=True):
            axes.plot([share, share], [low, high], ":", color=COLOURS["ignored"])
            axes.text(share + 0.01, (low + high) / 2, f"{high / low:.1f}x", va="center", **bold)
            told.append(f"{name} at {share:.0%} {high / low:.1f}x")
        axes.set(title=f"{key} a step", ylim=(0, 1.25 * max(dense)), xlim=(0, 0.5))
        axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
        axes.set_xlabel("positions with a label", fontsize=12)
    return finish(canvas, alt="Two pairs of lines, all positions above labelled ones. What all "
        f"positions cost more: {', '.join(told)}.",
        caption="A training step with logits at all positions, and at labelled positions alone."
    )  # fmt: skip
