"""What lesson 06 needs: its two exercises, a model that learns to spell, and its figures."""

import copy
import math
import os
import tempfile
import types
from functools import partial
from importlib.resources import files
from typing import Any

import torch
from torch.nn.functional import cross_entropy, one_hot
from tqdm.auto import tqdm

from mlmtutor.figure import COLOURS, figure, finish
from mlmtutor.lessons.exercise import (
    CHANGED,
    ByHand,
    WrongAnswer,
    exercise,
    first_difference,
    outcome,
    require_like,
    same,
)

# Exercise 1


def _guesses_and_labels():
    random, _ = torch.Generator().manual_seed(6), -100
    top = torch.tensor([[0, 2, 4, 1, 3], [2, 3, 4, 0, 1], [1, 0, 0, 2, 2]])
    first = torch.tensor([[0, _, 4, 1, 3], [1, _, 4, 0, 1], [5, _, _, _, _]])
    logits = one_hot(top, 6).float() * 3 + 0.1 * torch.rand(3, 5, 6, generator=random)
    second = torch.tensor([[_, 3, 0, _, 6, _, _, _], [1, 1, 0, 6, _, _, _, _]])
    others = torch.randn(2, 8, 9, generator=random)
    others[0, [1, 2], [3, 0]] = others[1, [1, 2], [1, 0]] = 9.0
    return [(logits, first), (others, second)]


def _hits(logits, labels):
    return (logits.argmax(dim=-1) == labels)[labels != -100].float()


def _said(logits, labels):
    hits = _hits(logits, labels)
    return f"{hits.sum():.0f} of {len(hits)} labelled positions: {hits.mean():.0%}."


@exercise(
    cases=_guesses_and_labels,
    says=_said,
    divisor=lambda logits, labels: int((labels != -100).sum()),
    of=lambda x, y: (x.argmax(-1) == y, y != -100, x, y),
)
def check_masked_accuracy(logits, labels):
    """masked_accuracy(logits, labels): share of labels that have the highest logit."""
    return _hits(logits, labels).mean().item()


check_masked_accuracy.wrong |= {
    "That is divided by the number of all positions. No guess is ever -100, so the ignored "
    "positions count as wrong: leave them out.": lambda hit, on, *_: hit.float().mean(),
    "That counts the ignored positions as right. Leave them out of the hits and out of the count.":
        lambda hit, on, *_: (hit | ~on).float().mean(),
    "That is how many are right. The accuracy is their share.": lambda hit, *_: hit.sum(),
    "That is a percentage. The share is between 0 and 1.":
        lambda hit, on, *_: 100 * hit[on].float().mean(),
    "That is the share of wrong guesses.": lambda hit, on, *_: 1 - hit[on].float().mean(),
    "That is the mean over the rows of their accuracies. Every labelled position of the batch "
    "counts the same, whichever row it is in.": lambda hit, on, *_: (hit.sum(1) / on.sum(1)).mean(),
    "That drops a label of 0, which is the id of a token. Only -100 is ignored.":
        lambda hit, on, x, y: hit[y > 0].float().mean(),
    "That compares each label with the guess at the position before. A masked language model does "
    "not shift.": lambda hit, on, x, y: _hits(x[:, :-1], y[:, 1:]).mean(),
    "That takes the lowest logit. The guess is the highest one.":
        lambda hit, on, x, y: _hits(-x, y).mean(),
    "That says right or wrong for each labelled position. Return one number for the batch: their "
    "mean.": lambda hit, on, *_: hit[on].float(),
    CHANGED: lambda hit, on, x, y: hit[on].float().mean() + 0 * y.fill_(0).sum(),
}  # fmt: skip


# Exercise 2


class _Model(torch.nn.Module):
    """Give fixed logits for each batch, other ones in training mode; note whether a graph is kept.

    In training mode each third logit is raised: a dropout that can be computed again.
    """

    def __init__(self, batches):
        super().__init__()
        random = torch.Generator().manual_seed(12)
        self.logits = [2 * torch.randn(*y.shape, 12, generator=random) for _, y in batches]
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.kept_graph = False

    def forward(self, input_ids, **_):
        logits = self.logits[int(input_ids[0, 0])]
        self.kept_graph |= torch.is_grad_enabled()
        noise = torch.arange(12) % 3 if self.training else 0
        return types.SimpleNamespace(logits=(logits + noise) * self.weight)


def _stored_batches():
    _ = -100
    first, last = [[_, 3, 0, 7, 11, _], [9, 2, 5, 1, _, _]], [[_, 8, 6, 10, _]]
    labels = map(torch.tensor, (first, [[_, _, _, _], [_, _, _, _], [_, 4, _, _]], last))
    return [(torch.full_like(y, i), y) for i, y in enumerate(labels)]


def _observe(answer, parts=6):
    """Return what an answer does: (loss, perplexity, top5), in both modes, then the two habits."""
    found, kept, graph = [], True, False
    for training in (False, True):
        model = _Model(_stored_batches()).train(training)
        found.append(answer(model, _stored_batches()))
        kept &= model.training is training
        graph |= model.kept_graph
        require_like(found[-1], (0.0,) * 3, ("loss", "perplexity", "top5"), "")
    quiet, noisy = found
    return [quiet[0], noisy[0], quiet[1], quiet[2], kept, graph][:parts]


def _judge(answer):
    found, right = _observe(answer), _observe(check_evaluate_batches.right)
    for part, (one, other) in enumerate(zip(found, right, strict=True)):
        if not same(one, other):
            for wrong, message in check_evaluate_batches.mistakes:
                if same(found[: part + 1], outcome(_observe, (wrong, part + 1))):
                    raise WrongAnswer(message)
            name = ("loss", "loss", "perplexity", "top5")[part]
            raise WrongAnswer(first_difference(one, other, (name,)))
    loss, _, perplexity, top5, *_ = found
    return f"loss {loss:.2f}, perplexity {perplexity:.2f}, top 5 {top5:.0%}; the mode is kept."


def _evaluate(model, batches, finish=None, mode=False, keep_mode=True, gradients=False):
    """evaluate_batches(model, batches): (loss, perplexity, top5) over all labelled positions."""
    was_training = model.training
    model.train(was_training if mode is None else mode)
    losses, ranks = [], []
    with torch.set_grad_enabled(gradients):
        for input_ids, labels in batches:
            scored = labels != -100
            logits, answers = model(input_ids=input_ids).logits[scored], labels[scored]
            losses.append(cross_entropy(logits, answers, reduction="none").detach())
            ranks.append((logits > logits.gather(1, answers.unsqueeze(1))).sum(dim=1))
    if keep_mode:
        model.train(was_training)
    loss, rank = torch.cat(losses).mean().item(), torch.cat(ranks)
    top5 = (rank < 5).float().mean().item()
    return finish(loss, top5, losses, rank) if finish else (loss, math.exp(loss), top5)


check_evaluate_batches = ByHand(_evaluate, _judge)
POSITIONS = sum(labels.numel() for _, labels in _stored_batches())


def _from(loss, top5):
    return loss, loss.exp(), top5


# What else is returned, made from the loss, top5, the losses by batch, and the ranks.
for said, other in {
    "That is the mean of the losses of the batches. One batch has 8 labels and another has 1: add "
    "up the losses of all labels, and divide by their number.":
        lambda loss, top5, parts, rank: _from(torch.stack([x.mean() for x in parts]).mean(), top5),
    "That is the sum over all labels. Divide it by how many there are.":
        lambda loss, top5, parts, _: (torch.cat(parts).sum(), math.exp(loss), top5),
    "That is divided by the number of all positions. Only the labelled ones are in the sum.":
        lambda loss, top5, parts, _: _from(torch.cat(parts).sum() / POSITIONS, top5),
    "Your perplexity is the mean of exp(loss) over the labels. It is exp of the mean.":
        lambda loss, top5, parts, _: (loss, torch.cat(parts).exp().mean(), top5),
    "Your perplexity is the mean of the perplexities of the batches. Take exp once, of the loss "
    "that you return.":
        lambda loss, top5, parts, _: (loss, sum(x.mean().exp() for x in parts) / len(parts), top5),
    "Your perplexity is 2 to the power of the loss. It is exp(loss).":
        lambda loss, top5, *_: (loss, 2**loss, top5),
    "Your third number counts first places. A label counts when it is among the five highest "
    "logits.": lambda loss, top5, _, rank: (loss, math.exp(loss), (rank < 1).float().mean()),
    "Your third number is divided by the number of all positions. Only labelled ones can be right.":
        lambda loss, top5, _, rank: (loss, math.exp(loss), (rank < 5).sum() / POSITIONS),
    "Your third number is a count. Return a share.":
        lambda loss, top5, _, rank: (loss, math.exp(loss), (rank < 5).sum()),
    "Your third number is a percentage. Return a share.":
        lambda loss, top5, *_: (loss, math.exp(loss), 100 * top5),
}.items():  # fmt: skip
    check_evaluate_batches.wrong[said] = partial(_evaluate, finish=other)
check_evaluate_batches.wrong |= {
    "A model in training mode gives you another loss: its dropout is on. Call `model.eval()` "
    "first.": partial(_evaluate, mode=None),
    "That is the loss of the last batch alone.":
        lambda model, batches: _evaluate(model, batches[-1:]),
    "Your function returns a float. It should return 3 values: `return loss, perplexity, top5`.":
        lambda model, batches: _evaluate(model, batches)[0],
    "The numbers are right, and the model comes back in another mode: an evaluation in the middle "
    "of a training would switch dropout off for the rest of it. Keep `model.training` in a name "
    "first, and set it again.": partial(_evaluate, keep_mode=False),
    "The numbers are right, and gradients are tracked: the graph of every batch takes memory. Put "
    "`@torch.no_grad()` above the function.": partial(_evaluate, gradients=True),
}  # fmt: skip


# A model that learns to spell

PARAGRAPHS = files("mlmtutor").joinpath("data/opticks.txt").read_text("utf-8").splitlines()
HELD_OUT = PARAGRAPHS[9::10]
TRAINING = [text for number, text in enumerate(PARAGRAPHS) if number % 10 != 9]
LETTERS = ["[MASK]", *sorted(set("".join(PARAGRAPHS).lower()))]
MASK, V = 0, len(LETTERS)


def letter_rows(texts):
    """Return texts as ids of letters, in rows of 16."""
    ids = torch.tensor([LETTERS.index(letter) for letter in " ".join(texts).lower()])
    return ids[: len(ids) // 16 * 16].view(-1, 16)


def word_rows(tokenizer):
    """Return 32 held-out rows of WordPiece, and 64 to train on, of 32 tokens each."""

    def rows(texts):
        ids = tokenizer(" ".join(texts), add_special_tokens=False, verbose=False)["input_ids"]
        body = torch.tensor(ids[: len(ids) // 30 * 30]).view(-1, 30)
        ends = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]).expand(len(body), 2)
        return torch.cat([ends[:, :1], body, ends[:, 1:]], dim=1)

    training = rows(TRAINING)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(4))
    return rows(HELD_OUT)[:32], training[order[:64]]


def select(ids, generator):
    """Select 15 % of the positions."""
    return torch.rand(ids.shape, generator=generator) < 0.15


def right(ids, selected):
    """Mask the selected letters, and score them alone."""
    return ids.masked_fill(selected, MASK), ids.masked_fill(~selected, -100)


def nothing_masked(ids, selected):
    """Show every letter, and score every letter."""
    return ids, ids


def labels_are_inputs(ids, selected):
    """Mask the selected letters, and take the masked ids as labels."""
    ids = ids.masked_fill(selected, MASK)
    return ids, ids


def aliased(ids, selected):
    """Keep the labels first and mask afterwards, in the one tensor that both are."""
    labels = ids
    ids[selected] = MASK
    return ids, labels.masked_fill(~selected, -100)


POLICIES = {
    "masked, labels\nwhere masked": right,
    "nothing masked,\nlabels = ids": nothing_masked,
    "masked, labels =\nthe masked ids": labels_are_inputs,
    "labels = ids,\nthen ids masked": aliased,
}


def new_model():
    """Return a small BERT for letters, always with the same random weights, and its optimizer."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": V, "hidden_size": 48, "intermediate_size": 64}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 16}
    small |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForMaskedLM(BertConfig(**small, initializer_range=0.12))
    return model, torch.optim.AdamW(model.parameters(), lr=5e-3)


def step(model, optimizer, input_ids, labels):
    """Take one step of training; return the loss before it."""
    loss = model(input_ids=input_ids, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train(policy, steps=250):
    """Train a new model on the labels of one policy; return it and the loss of each step."""
    (model, optimizer), rows = new_model(), letter_rows(TRAINING)
    draw, losses = torch.Generator().manual_seed(1), []
    # No progress bar where stored outputs are compared.
    for _ in tqdm(range(steps), leave=False, disable="PYTEST_CURRENT_TEST" in os.environ):
        ids = rows[torch.randint(len(rows), (128,), generator=draw)]
        losses.append(step(model, optimizer, *policy(ids, select(ids, draw))))
    return model.eval(), losses


def copy_without_dropout(model):
    """Return a copy of a model that drops nothing out, in training mode either."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def random_rows(numbers):
    """Return a row of ten random ids, 4 where they are masked, for each number of labels."""
    draw, rows = torch.Generator().manual_seed(1), []
    for number in numbers:
        ids = torch.randint(5, 50, (10,), generator=draw)
        where = torch.randperm(10, generator=draw)[:number]
        labels = torch.full_like(ids, -100).scatter(0, where, ids[where])
        rows.append({"input_ids": ids.index_fill(0, where, 4), "labels": labels})
    return rows


def quiet_trainer(model, rows=None, settings=(), **options):
    """Return a Trainer that prints nothing, saves nothing, and evaluates on ``rows``."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    quiet: dict[str, Any] = {"report_to": "none", "logging_strategy": "no", "disable_tqdm": True}
    quiet |= {"save_strategy": "no", "use_cpu": True, "output_dir": tempfile.gettempdir()}
    arguments = TrainingArguments(**quiet | dict(settings))
    trainer = Trainer(model, arguments, eval_dataset=rows, **options)
    trainer.remove_callback(PrinterCallback)
    return trainer


# Figures


def loss_curves(losses, unigram):
    """F10, first half: the training loss of each policy, and nothing else."""
    canvas, panels = figure(2, 2, size=(7.2, 4.4), sharex=True, sharey=True)
    said = []
    for axes, (words, curve) in zip(panels.flat, losses.items(), strict=True):
        axes.plot(range(1, len(curve) + 1, 2), curve[::2], color=COLOURS["scored"], linewidth=1.5)
        axes.axhline(unigram, color=COLOURS["ignored"], linewidth=1, linestyle=":")
        axes.set_title(" ".join(words.split()), fontsize=12)
        axes.set(ylim=(-0.1, 4.5), xticks=(0, len(curve)))
        last = sum(curve[-20:]) / 20
        end = "near 0" if last < 0.1 else "below" if last < unigram else "above"
        said.append(f"{' '.join(words.split())}: ends {end}{'' if last < 0.1 else ' that line'}.")
    panels[0, 1].text(len(curve), unigram, "letter frequencies", ha="right", va="bottom",
                      color=COLOURS["ignored"], fontsize=12)  # fmt: skip
    canvas.supxlabel("step", fontsize=12)
    canvas.supylabel("training loss (nats)", fontsize=12)
    return finish(canvas, alt="The training loss of four models, with the loss of letter "
        f"frequencies as a dotted line. {' '.join(said)}",
        caption="Four ways to mask and to label. Which of the models would you ship?")  # fmt: skip


def accuracies(accuracy, guess):
    """F10, second half: the share of hidden letters that each model gets right."""
    canvas, axes = figure(size=(7.2, 3.0))
    said = []
    for row, (words, share) in enumerate(accuracy.items()):
        better = share > guess
        colour = COLOURS["right" if better else "wrong"]
        axes.barh(row, share, color=colour)
        axes.text(share + 0.005, row, f"{share:.0%}", va="center", color=colour, fontsize=14)
        said.append(f"{' '.join(words.split())}: {'above' if better else 'below'} it.")
    axes.axvline(guess, color=COLOURS["ignored"], linewidth=1.5, linestyle=":")
    words = f"always answering a space: {guess:.0%}"
    axes.text(guess + 0.005, -0.6, words, color=COLOURS["ignored"], fontsize=13)
    axes.set_yticks(range(len(accuracy)), list(accuracy), fontsize=13)
    axes.set(ylim=(len(accuracy) - 0.4, -1.1), xlim=(0, 0.4), xticks=[])
    axes.spines["bottom"].set_visible(False)
    return finish(canvas, alt="The share of hidden letters that each of four models gets right, "
        f"with the {guess:.0%} of always answering a space as a line. {' '.join(said)}",
        caption="The same four models: how many of the hidden letters each gets right."
    )  # fmt: skip


def mixture(share, masked, visible):
    """A loss over all positions as two blocks, as wide as their share and as high as their loss."""
    canvas, axes = figure(size=(7.2, 2.8))
    whole = share * masked + (1 - share) * visible
    axes.bar(0, masked, share, align="edge", color=COLOURS["replaced"])
    axes.bar(share, visible, 1 - share, align="edge", color=COLOURS["ignored"])
    axes.axhline(whole, color=COLOURS["scored"], linewidth=2)
    for x, y, words, colour in (
        (share + 0.02, 0.85 * masked, f"{share:.0%} masked letters: {masked:.1f}", "#8A5A00"),
        (share + 0.02, 0.06, f"{1 - share:.0%} visible letters: {visible:.1f}", COLOURS["ignored"]),
        (0.8, whole + 0.05, f"loss {whole:.1f}", COLOURS["scored"]),
    ):
        axes.text(x, y, words, fontsize=14, color=colour)
    axes.set(xlim=(0, 1), xticks=[])
    axes.set_ylabel("loss (nats)", fontsize=12)
    return finish(canvas, alt=f"Two blocks: {share:.0%} of the width are masked letters with a "
        f"high loss, {1 - share:.0%} are visible letters with a loss near 0. The mean of both is "
        "low.",
        caption="With labels everywhere, the loss is the mean over both blocks, the blue line."
    )  # fmt: skip
