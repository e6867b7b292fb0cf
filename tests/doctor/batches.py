"""What the tests of the doctor share: a small tokenizer, a small BERT, and healthy batches."""

import itertools
import random
import re

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
)

import mlmtutor
from mlmtutor import MaskingPolicy, mask_tokens

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["##s", "##ing", "##ed", "<", ">", "[", "]", "mask", "."]
WORDS = [a + b for a in "bcdfghjklmnprstvw" for b in ("ad", "ell", "ink", "og", "ump")]


def bert_tokenizer(words, mask="[MASK]"):
    """A WordPiece tokenizer of these words, made alike by transformers 4 and 5."""
    vocab = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    names = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token", "pad_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", mask_token=mask, **names
    )


TOKENIZER = bert_tokenizer([*SPECIAL, *PIECES, *WORDS])
PAD, UNK, CLS, SEP, MASK = range(5)
V = len(TOKENIZER)
BERT_POLICY = MaskingPolicy()


def config(**changes):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {"vocab_size": V, "intermediate_size": 16, **sizes, **changes}


def small(name="BertForMaskedLM", **changes):
    """A small model of a class of transformers."""
    torch.manual_seed(0)
    family = re.match(r"[A-Z][a-z]+(?:Bird)?(?:\d)?", name)[0]
    made = getattr(transformers, family + "Config")(**config(max_position_embeddings=64, **changes))
    return getattr(transformers, name)(made).eval()


def bert(**changes):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**config(max_position_embeddings=64, **changes))).eval()


MODEL = bert()


def make_rows(count=12, length=22, seed=0):
    """Encoded texts of different lengths, with words of two pieces."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [
            rng.choice(WORDS) + rng.choice(["", "", "s", "ing"])
            for _ in range(rng.randint(length - 8, length))
        ]
        rows.append(dict(TOKENIZER(" ".join(words) + ".")))
    return rows


def pad(rows):
    return dict(TOKENIZER.pad(rows, return_tensors="pt"))


def healthy(seed=0, policy=BERT_POLICY, **sizes):
    """A healthy padded batch, and what a fix may refer to."""
    batch = pad(make_rows(seed=seed, **sizes))
    original = batch["input_ids"].clone()
    words = word_ids(original)
    batch["input_ids"], batch["labels"] = mask_tokens(
        original,
        TOKENIZER,
        policy=policy,
        generator=torch.Generator().manual_seed(seed),
        word_ids=words if policy.whole_word else None,
    )
    return batch, {"original": original, "word_ids": words, "tokenizer": TOKENIZER}


def word_ids(ids):
    tokens = [TOKENIZER.convert_ids_to_tokens(row) for row in ids.tolist()]
    return [
        list(itertools.accumulate((not token.startswith("##") for token in row), initial=0))[1:]
        for row in tokens
    ]


def row_of(ids, labels, **more):
    """One row as a batch."""
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels]), **more}


def run_fix(fix, names):
    """Run the code of a fix, in the order in which it stands, and return the names."""
    modules = {"torch": torch, "transformers": transformers, "mlmtutor": mlmtutor}
    names = {"mask_tokens": mask_tokens, "MaskingPolicy": MaskingPolicy, **modules, **names}
    torch.manual_seed(3)
    for snippet in re.findall(r"`([^`]+)`", fix):
        exec(snippet, names)  # the code is the package's own
    return names


def mlm(**options):
    return DataCollatorForLanguageModeling(TOKENIZER, **options)
