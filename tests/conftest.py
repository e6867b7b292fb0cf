import pytest
from browser import CHROMIUM, QUIET

# torch is imported where it's used: the process that starts the workers doesn't wait for it.


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # an extra that `make test` doesn't install

    assert CHROMIUM, "CI is set, and there is no chromium: .ci/run installs it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tutor():
    from mlmtutor import load_tutor

    return load_tutor()


@pytest.fixture(scope="session")
def tokenizer(tutor):
    return tutor[1]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random BERT of two layers with ten tokens, saved as a checkpoint."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "."]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    vocab = str(folder / "vocab.txt")
    BertTokenizerFast.from_pretrained(str(folder), vocab_file=vocab).save_pretrained(folder)
    return folder
