"""A folder as ``save_pretrained`` writes it: a small BERT with random weights, and the tokenizer."""

import shutil

import torch
from transformers import BertConfig, BertForMaskedLM

from mlmtutor.model import TUTOR_FOLDER

TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_random_checkpoint(folder, seed):
    """Write it: the vocabulary of the embedded model, another size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=30522,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
        )
        BertForMaskedLM(config).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(TUTOR_FOLDER / name, folder)
