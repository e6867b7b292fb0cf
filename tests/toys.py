"""Small tokenizers and models of the kinds that exist, built in memory: no file, no network."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

release_5 = pytest.mark.skipif(transformers.__version__ < "5", reason="told of transformers 5")

WORDS = [
    "the", "a", "cat", "dog", "sat", "on", "mat", "door", "opened", "she",
    "he", "walked", "and", "into", "room", ".", ",", "token", "walk",
]  # fmt: skip
PIECES = ["##s", "##ed", "##ing", "##ization", "##r"]
TEXTS = [
    "the cat sat on the mat .",
    "she opened the doors , and walked into the room .",
    "tokenization , walking dogs .",
]


def wordpiece() -> PreTrainedTokenizerFast:
    """A BERT tokenizer with the special tokens at ids 0 to 4."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]
    vocab = {token: i for i, token in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def byte_level_bpe() -> PreTrainedTokenizerFast:
    """A RoBERTa tokenizer, trained on a few sentences; its mask token has the last id."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def without_mask_token() -> PreTrainedTokenizerFast:
    """A tokenizer such as GPT-2 has."""
    vocab = {"<unk>": 0, "cat": 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="<unk>")), unk_token="<unk>"
    )


SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
HEADS = {
    "Bert": SMALL,
    "Roberta": SMALL,
    "DistilBert": {
        "vocab_size": 60,
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 32,
        "pad_token_id": 0,
    },
    "Albert": SMALL | {"embedding_size": 8},
    "Electra": SMALL | {"embedding_size": 8},
    "DebertaV2": SMALL,
    "XLMRoberta": SMALL,
    "Camembert": SMALL,
    "MPNet": SMALL,
    "Deberta": SMALL,
    "Esm": SMALL | {"mask_token_id": 4, "position_embedding_type": "rotary"},
    "EuroBert": SMALL | {"num_key_value_heads": 2, "mask_token_id": 4},
    "Longformer": SMALL | {"attention_window": [4], "sep_token_id": 2},
    "ModernBert": SMALL
    | {
        "bos_token_id": 1,
        "cls_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "reference_compile": False,
    },
}


def small_model(name, **changes):
    """A seeded ``{name}ForMaskedLM`` in eval mode; skips the test where the release lacks it."""
    head = getattr(transformers, f"{name}ForMaskedLM", None)
    if head is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}ForMaskedLM")
    config = getattr(transformers, f"{name}Config")(**HEADS[name] | changes)
    torch.manual_seed(0)
    return head(config).eval()
