"""A folder as tools/pretrain/gather.py writes it: a few sentences, and a body of one layer."""

import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

VOCAB = pathlib.Path(__file__).parents[1] / "mlmtutor" / "tutor_bert" / "vocab.txt"
SENTENCES = [
    f"The {who} {does} the {what} in the {where}."
    for who in ("cat", "dog", "old man", "teacher")
    for does in ("sees", "takes", "reads", "likes")
    for what in ("book", "bread", "small red ball", "letter from the north")
    for where in ("house", "garden", "school")
]


def write_tiny_corpus(folder):
    """Fill `folder`, which exists and is empty."""
    (folder / "text").mkdir()
    (folder / "base").mkdir()
    (folder / "NOTICE").write_text("notice\n")
    (folder / "text" / "wordnet_examples.txt").write_text("\n".join(SENTENCES[:150]) + "\n")
    long = [" ".join(SENTENCES[at : at + 9]) for at in range(0, len(SENTENCES), 4)]
    (folder / "text" / "sotu_modern.txt").write_text("\n".join(long) + "\n")
    shutil.copyfile(VOCAB, folder / "base" / "vocab.txt")
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    body = BertModel(config, add_pooling_layer=False).state_dict()
    save_file(body, folder / "base" / "model.safetensors")
    config.save_pretrained(folder / "base")
