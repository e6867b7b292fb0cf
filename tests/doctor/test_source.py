"""The linter: broken sources are found at their line, healthy ones raise nothing."""

import json
import os
import sys
import warnings
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from mlmtutor.doctor import source as lint
from mlmtutor.doctor.source import RULES, lint_file, lint_notebook, lint_paths, lint_source

BERT = """
import torch
from transformers import BertForMaskedLM, BertTokenizer

model = BertForMaskedLM.from_pretrained("bert-base-uncased")
tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")
"""
TRAIN = """
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling
from transformers import Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("distilbert-base-uncased")
model = AutoModelForMaskedLM.from_pretrained("distilbert-base-uncased")
collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
"""

# code, source, and what to replace to follow the fix. The line with the mark "#!" is the finding.
BROKEN = {
    "the page that this project answers": (
        "label-is-mask",
        BERT
        + """
text = "I want to [MASK] the world."
tokens = ['[CLS]'] + tokenizer.tokenize(text) + ['[SEP]']
input_ids = tokenizer.convert_tokens_to_ids(tokens)
masked_lm_labels = [-100] * len(input_ids)
mask_position = 4
masked_lm_labels[mask_position] = input_ids[mask_position]  #!
outputs = model(torch.tensor([input_ids]), labels=torch.tensor([masked_lm_labels]))
""",
        ("= input_ids[mask_position]", "= tokenizer.convert_tokens_to_ids('change')"),
    ),
    "the old keyword": (
        "old-label-keyword",
        BERT + "loss = model(ids, masked_lm_labels=labels)[0]  #!\n",
        ("masked_lm_labels", "labels"),
    ),
    "the causal keyword of old": (
        "old-label-keyword",
        BERT + "loss = model(ids, lm_labels=labels)[0]  #!\n",
        ("lm_labels", "labels"),
    ),
    "a model in an attribute": (
        "old-label-keyword",
        BERT
        + """
class Scorer:
    def __init__(self):
        self.net = BertForMaskedLM.from_pretrained("bert-base-cased").to("cuda").eval()

    def loss(self, ids, target):
        return self.net(ids, masked_lm_labels=target).loss  #!
""",
        ("masked_lm_labels", "labels"),
    ),
    "a dictionary of arguments": (
        "old-label-keyword",
        BERT
        + """
inputs = {
    "input_ids": ids,
    "masked_lm_labels": target,  #!
}
out = model(**inputs)
""",
        ("masked_lm_labels", "labels"),
    ),
    "an item of a batch": (
        "old-label-keyword",
        BERT + "batch['masked_lm_labels'] = target  #!\nout = model(**batch)\n",
        ("masked_lm_labels", "labels"),
    ),
    "a module alias and parallel": (
        "old-label-keyword",
        """
import torch.nn as nn
import transformers as tf
net = tf.RobertaForMaskedLM(tf.RobertaConfig())
net = nn.DataParallel(net)
loss = net(input_ids=x, lm_labels=y).loss.mean()  #!
""",
        ("lm_labels", "labels"),
    ),
    "an import under another name": (
        "labels-are-inputs",
        """
from transformers import ElectraForMaskedLM as Net
net = Net.from_pretrained("google/electra-small-generator")
out = net(input_ids, labels=input_ids)  #!
""",
        ("labels=input_ids", "labels=target"),
    ),
    "the pretraining head": (
        "old-label-keyword",
        "from pytorch_pretrained_bert import BertForPreTraining\n"
        "m = BertForPreTraining.from_pretrained('bert-base-uncased')\n"
        "loss = m(ids, segments, mask, masked_lm_labels=y, next_sentence_label=z)  #!\n",
        ("masked_lm_labels", "labels"),
    ),
    "labels filled with the mask id": (
        "label-is-mask",
        BERT + "labels[0, 4] = tokenizer.mask_token_id  #!\nmodel(ids, labels=labels)\n",
        ("= tokenizer.mask_token_id", "= answer"),
    ),
    "labels from ids that are masked": (
        "label-is-mask",
        BERT
        + "ids = tokenizer(text, return_tensors='pt').input_ids\n"
        + "labels = torch.where(ids == tokenizer.mask_token_id, ids, -100)  #!\n",
        ("id, ids, -100", "id, original, -100"),
    ),
    "no clone": (
        "label-is-mask",
        BERT
        + """
def mask_tokens(inputs):
    labels = inputs  #!
    chosen = torch.bernoulli(torch.full(labels.shape, 0.15)).bool()
    inputs[chosen] = tokenizer.mask_token_id
    return inputs, labels
""",
        ("labels = inputs", "labels = inputs.clone()"),
    ),
    "no clone in a batch": (
        "label-is-mask",
        BERT
        + """
MASK = tokenizer.convert_tokens_to_ids("[MASK]")
batch["labels"] = batch["input_ids"]  #!
batch["input_ids"][chosen] = MASK
""",
        ('batch["input_ids"]  #!', 'batch["input_ids"].clone()  #!'),
    ),
    "the masked sentence as labels": (
        "label-is-mask",
        BERT
        + 'labels = tokenizer("The capital is [MASK].", return_tensors="pt")["input_ids"]  #!\n',
        ("[MASK]", "Paris"),
    ),
    "labels are inputs": (
        "labels-are-inputs",
        BERT + "loss = model(input_ids=input_ids, labels=input_ids).loss  #!\n",
        ("labels=input_ids", "labels=labels"),
    ),
    "labels are inputs, cloned": (
        "labels-are-inputs",
        BERT + "loss = model(**x, labels=x['input_ids'].clone()).loss  #!\n",
        ("labels=x['input_ids'].clone()", "labels=y"),
    ),
    "labels are the first argument": (
        "labels-are-inputs",
        BERT + "for sentence in data:\n    score = model(sentence, labels=sentence).loss  #!\n",
        ("labels=sentence", "labels=answers"),
    ),
    "a clone without -100": (
        "labels-are-inputs",
        BERT
        + """
inputs["labels"] = inputs.input_ids.detach().clone()  #!
inputs.input_ids[chosen] = 103
loss = model(**inputs).loss
""",
        ("inputs.input_ids.detach().clone()", "target"),
    ),
    "a model that a function returns": (
        "labels-are-inputs",
        BERT
        + """
def build(name):
    net = BertForMaskedLM.from_pretrained(name)
    return net
scorer = build("bert-base-cased")
scorer(input_ids, labels=input_ids)  #!
""",
        ("labels=input_ids", "labels=y"),
    ),
    "an annotated argument": (
        "labels-are-inputs",
        BERT
        + """
def score(net: BertForMaskedLM, input_ids):
    return net(input_ids, labels=input_ids).loss  #!
""",
        ("labels=input_ids", "labels=y"),
    ),
    "accelerate": (
        "labels-are-inputs",
        BERT
        + "net, optimizer = accelerator.prepare(model, optimizer)\n"
        + "net(input_ids, labels=input_ids)  #!\n",
        ("labels=input_ids", "labels=y"),
    ),
    "a model that is an argument": (
        "labels-are-inputs",
        BERT.replace("\nmodel =", "\ndef main():\n    train(model)\n    model =").replace(
            "\ntokenizer =", "\n    tokenizer ="
        )
        + """
def train(model, batches):
    for input_ids in batches:
        loss = model(input_ids, labels=input_ids).loss  #!
""",
        ("labels=input_ids", "labels=y"),
    ),
    "a model that cannot be followed": (
        "old-label-keyword",
        """
from transformers import BertConfig, BertForMaskedLM, RobertaForMaskedLM
CLASSES = {"bert": BertForMaskedLM, "roberta": RobertaForMaskedLM}
model = CLASSES[name].from_pretrained(path)
def train(args, model):
    loss = model(inputs, masked_lm_labels=labels)[0] if args.mlm else 0  #!
""",
        ("masked_lm_labels", "labels"),
    ),
    "-1 in the labels": (
        "ignore-minus-one",
        BERT + "labels[~chosen] = -1  #!\nloss = model(ids, labels=labels).loss\n",
        ("-1", "-100"),
    ),
    "-1 by where": (
        "ignore-minus-one",
        BERT + "labels = torch.where(chosen, ids, -1)  #!\nloss = model(ids, labels=labels).loss\n",
        ("-1", "-100"),
    ),
    "-1 in a list": (
        "ignore-minus-one",
        BERT + "labels = [-1] * len(ids)  #!\nloss = model(ids, labels=torch.tensor([labels]))\n",
        ("-1", "-100"),
    ),
    "-1 in place": (
        "ignore-minus-one",
        BERT + "labels.masked_fill_(~chosen, -1)  #!\nloss = model(ids, labels=labels)\n",
        ("-1", "-100"),
    ),
    "ignore_index=-1 on labels of the collator": (
        "ignore-minus-one",
        TRAIN
        + """
criterion = torch.nn.CrossEntropyLoss(ignore_index=-1)  #!
loss = criterion(logits.view(-1, V), collator(rows)["labels"].view(-1))
""",
        ("ignore_index=-1", "ignore_index=-100"),
    ),
    "the whole-word collator": (
        "removed-collator",
        "from transformers import DataCollatorForWholeWordMask  #!\n",
        ("DataCollatorForWholeWordMask", "DataCollatorForLanguageModeling"),
    ),
    "the whole-word collator as attribute": (
        "removed-collator",
        "import transformers\nc = transformers.DataCollatorForWholeWordMask(tokenizer=t)  #!\n",
        ("DataCollatorForWholeWordMask", "DataCollatorForLanguageModeling"),
    ),
    "evaluation_strategy": (
        "evaluation-strategy",
        TRAIN + 'args = TrainingArguments("out", evaluation_strategy="epoch")  #!\n',
        ("evaluation_strategy", "eval_strategy"),
    ),
    "evaluation_strategy in a dictionary": (
        "evaluation-strategy",
        TRAIN
        + 'settings = dict(output_dir="out", evaluation_strategy="epoch")  #!\n'
        + "args = TrainingArguments(**settings)\n",
        ("evaluation_strategy", "eval_strategy"),
    ),
    "Trainer(tokenizer=)": (
        "trainer-tokenizer",
        TRAIN + "trainer = Trainer(model, args, collator, tokenizer=tokenizer)  #!\n",
        ("tokenizer=tokenizer)  #", "processing_class=tokenizer)  #"),
    ),
    "a Trainer of one's own": (
        "trainer-tokenizer",
        TRAIN
        + "class MyTrainer(Trainer):\n    pass\n"
        + "trainer = MyTrainer(model=model, tokenizer=tokenizer)  #!\n",
        ("model=model, tokenizer=", "model=model, processing_class="),
    ),
    "accumulation": (
        "accumulation-inflated",
        TRAIN
        + 'args = TrainingArguments("out", gradient_accumulation_steps=8)  #!\n'
        + "trainer = Trainer(model, args, collator)\n",
        ("args, collator)", "args, collator, compute_loss_func=trainer_loss)"),
    ),
    "accumulation in a dictionary": (
        "accumulation-inflated",
        TRAIN
        + 'settings = {"gradient_accumulation_steps": 2}  #!\n'
        + 'Trainer(model, TrainingArguments("out", **settings), collator).train()\n',
        ('_steps": 2}', '_steps": 1}'),
    ),
    "<mask> for BERT": (
        "hand-spelled-mask",
        BERT + 'inputs = tokenizer("The capital of France is <mask>.", return_tensors="pt")  #!\n',
        ("<mask>", "[MASK]"),
    ),
    "[MASK] for RoBERTa": (
        "hand-spelled-mask",
        'from transformers import pipeline\nfill = pipeline("fill-mask", model="roberta-base")\n'
        'fill("Paris is the [MASK] of France.")  #!\n',
        ("[MASK]", "<mask>"),
    ),
    "[MASK] for RoBERTa in an f-string": (
        "hand-spelled-mask",
        'tok = AutoTokenizer.from_pretrained("FacebookAI/xlm-roberta-base")\n'
        'text = f"{name} is [MASK]."  #!\n',
        ("[MASK]", "{tok.mask_token}"),
    ),
    "looking up another family's token": (
        "hand-spelled-mask",
        BERT + 'MASK = tokenizer.convert_tokens_to_ids("<mask>")  #!\n',
        ("<mask>", "[MASK]"),
    ),
    "a class that no longer exists": (
        "old-label-keyword",
        "from transformers import AutoModelWithLMHead\n"
        "model = AutoModelWithLMHead.from_pretrained('bert-base-uncased')\n"
        "loss = model(ids, masked_lm_labels=labels)[0]  #!\n",
        ("masked_lm_labels", "labels"),
    ),
    "a name that is only a copy": (
        "labels-are-inputs",
        BERT + "labels = ids.clone()\nloss = model(ids, labels=labels).loss  #!\n",
        ("labels=labels", "labels=answers"),
    ),
    "all labels but the mask id": (
        "label-is-mask",
        BERT
        + "labels = inputs['input_ids'].clone()\n"
        + "labels[labels != tokenizer.mask_token_id] = -100  #!\nmodel(**inputs, labels=labels)\n",
        ("labels[labels !=", "labels[inputs['input_ids'] !="),
    ),
    "the mask id by where and not equal": (
        "label-is-mask",
        BERT + "labels = torch.where(ids != tokenizer.mask_token_id, -100, ids)  #!\n",
        ("-100, ids)", "-100, original)"),
    ),
    "the mask id by masked_fill": (
        "label-is-mask",
        BERT + "labels = ids.masked_fill(ids != tokenizer.mask_token_id, -100)  #!\n",
        ("ids.masked_fill", "original.masked_fill"),
    ),
    "the mask id by a list": (
        "label-is-mask",
        BERT + "labels = [i if i == tokenizer.mask_token_id else -100 for i in ids]  #!\n",
        ("[i if i ==", "[answer if i =="),
    ),
    "-1 by a list": (
        "ignore-minus-one",
        BERT + "labels = [i if c else -1 for i, c in z]  #!\nmodel(x, labels=tensor([labels]))\n",
        ("-1", "-100"),
    ),
    "-1 in labels of another name": (
        "ignore-minus-one",
        BERT + "target[~chosen] = -1  #!\nloss = model(ids, labels=target).loss\n",
        ("-1", "-100"),
    ),
    "the whole-word collator from a star": (
        "removed-collator",
        "from transformers import *\ncollator = DataCollatorForWholeWordMask(tokenizer)  #!\n",
        ("DataCollatorForWholeWordMask", "DataCollatorForLanguageModeling"),
    ),
    "<mask> for BERT in a sum": (
        "hand-spelled-mask",
        BERT + 'inputs = tokenizer("The capital is " + "<mask>" + ".")  #!\n',
        ("<mask>", "[MASK]"),
    ),
    "Python 2": ("does-not-parse", "print 'hello'  #!\n", ("print 'hello'", "print('hello')")),
}

ACCUMULATES = TRAIN + 'args = TrainingArguments("out", gradient_accumulation_steps=8)\n'

HEALTHY = {
    "nothing": "",
    "accumulation without Trainer": ACCUMULATES,
    "accumulation with Trainer told of it": ACCUMULATES
    + "model.accepts_loss_kwargs = False\ntrainer = Trainer(model, args, collator)\n",
    "accumulation with a loss of one's own": ACCUMULATES
    + """
class MyTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return summed(model, inputs) / num_items_in_batch
trainer = MyTrainer(model, args, collator)
""",
    "accumulation with a model that divides": ACCUMULATES.replace(
        "distilbert-base-uncased", "answerdotai/ModernBERT-base"
    )
    + "trainer = Trainer(model, args, collator)\n",
    "accumulation of a number that is not written here": TRAIN
    + 'args = TrainingArguments("out", gradient_accumulation_steps=steps)\n'
    + "trainer = Trainer(model, args, collator)\n",
    "accumulation of a classifier": """
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
model = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased")
trainer = Trainer(model, TrainingArguments("out", gradient_accumulation_steps=8))
""",
    "a good masked step": BERT
    + """
original = tokenizer(text, return_tensors="pt")["input_ids"]
labels = original.clone()
labels[~chosen] = -100
input_ids = original.clone()
input_ids[chosen] = tokenizer.mask_token_id
loss = model(input_ids=input_ids, labels=labels).loss
""",
    "labels by where from the originals": BERT
    + "labels = torch.where(inputs.input_ids == tokenizer.mask_token_id, labels, -100)\n"
    + "loss = model(**inputs, labels=labels).loss\n",
    "a causal model": """
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("gpt2")
loss = model(input_ids, labels=input_ids).loss
""",
    "a causal model beside a masked one": BERT
    + """
from transformers import GPT2LMHeadModel
gpt = GPT2LMHeadModel.from_pretrained("gpt2")
perplexity = gpt(input_ids, labels=input_ids).loss.exp()
""",
    "a name that is used for two models": BERT
    + """
loss = model(masked, labels=labels).loss
model = transformers.AutoModelForCausalLM.from_pretrained("gpt2")
loss = model(input_ids, labels=input_ids).loss
""",
    "a classifier": """
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer
from transformers import TrainingArguments
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
model = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased", num_labels=2)
args = TrainingArguments("out", evaluation_strategy="epoch")
trainer = Trainer(model=model, args=args, tokenizer=tokenizer)
loss = model(input_ids, attention_mask=mask, labels=labels).loss
labels[padding] = -1
criterion = torch.nn.CrossEntropyLoss(ignore_index=-1)
""",
    "a tagger that ignores -100 and -1": """
from transformers import BertForTokenClassification
model = BertForTokenClassification.from_pretrained("bert-base-cased")
labels = torch.full_like(input_ids, -1)
label_ids[label_ids == -100] = -1
loss = cross_entropy(model(input_ids).logits, labels, ignore_index=-1)
""",
    "an image classifier": """
model = resnet18()
labels = labels.to(device)
loss = model(images, labels=labels)
labels[~mask] = -1
""",
    "a loss of its own that ignores -1": BERT
    + """
labels[~chosen] = -1
logits = model(ids).logits
loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)
""",
    "a model of its own with the old argument": """
import torch.nn as nn
class MyBert(nn.Module):
    def forward(self, input_ids, masked_lm_labels=None):
        return self.loss(self.net(input_ids), masked_lm_labels)
model = MyBert()
loss = model(ids, masked_lm_labels=labels)
""",
    "a local class of the same name": """
from modeling import BertForMaskedLM
model = BertForMaskedLM(config)
loss = model(ids, masked_lm_labels=labels)
""",
    "records with a field of that name": """
from transformers import BertTokenizer
from .data import TrainingInstance
instance = TrainingInstance(tokens=tokens, masked_lm_labels=masked_lm_labels)
columns = dict(tokens=[], masked_lm_labels=[])
print(tokenizer.mask_token_id)
""",
    "a multimodal encoder without evidence": """
class Model(nn.Module):
    def forward(self, caps, video):
        return self.mm_encoder(input_ids=caps, masked_lm_labels=text_label)
""",
    "T5 with the old keyword": """
from transformers import T5ForConditionalGeneration
model = T5ForConditionalGeneration.from_pretrained("t5-small")
loss = model(input_ids=ids, lm_labels=target)[0]
""",
    "the collator replaces the labels": TRAIN
    + """
def tokenize(texts):
    result = tokenizer(texts["text"])
    result["labels"] = result["input_ids"].copy()
    return result
loss = model(**collator(rows)).loss
""",
    "causal language modeling with a collator": """
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
args = TrainingArguments("out", evaluation_strategy="steps")
trainer = Trainer(model=model, args=args, data_collator=collator, tokenizer=tokenizer)
""",
    "pytorch lightning": TRAIN
    + "import pytorch_lightning as pl\ntrainer = pl.Trainer(max_epochs=1, tokenizer=tokenizer)\n",
    "today's names": TRAIN
    + 'args = TrainingArguments("out", eval_strategy="epoch")\n'
    + "trainer = Trainer(model=model, args=args, processing_class=tokenizer)\n",
    "a guarded import": """
try:
    from transformers import DataCollatorForWholeWordMask
except ImportError:
    DataCollatorForWholeWordMask = None
""",
    "a collator of that name": """
class DataCollatorForWholeWordMask:
    pass
collator = DataCollatorForWholeWordMask()
""",
    "the right mask for each": BERT
    + 'x = tokenizer("The capital is [MASK].")\ny = tokenizer(f"It is {tokenizer.mask_token}.")\n',
    "both families": BERT
    + 'other = RobertaTokenizer.from_pretrained("roberta-base")\n'
    + 'other("The capital is <mask>.")\ntokenizer("The capital is [MASK].")\n',
    "a mask that is replaced": BERT
    + 'text = "The capital is <mask>."\ntext = text.replace("<mask>", tokenizer.mask_token)\n',
    "a docstring about <mask>": BERT + 'def f():\n    """Write <mask> for RoBERTa."""\n',
    "a mask token that is defined": BERT
    + 'tokenizer.add_special_tokens({"mask_token": "<mask>"})\n'
    + 'tok = BertTokenizerFast(vocab_file="v.txt", mask_token="<mask> ")\n',
    "a RoBERTa with the tokenizer of BERT": (
        'tok = AutoTokenizer.from_pretrained("hfl/chinese-roberta-wwm-ext")\ntok("[MASK] is here")\n'
    ),
    "unknown checkpoints": 'tok = AutoTokenizer.from_pretrained(name)\ntok("a <mask> b [MASK] c")\n',
    "labels that are cloned before masking": BERT
    + """
labels = inputs.clone()
inputs[chosen] = tokenizer.mask_token_id
labels[~chosen] = -100
""",
    "labels of the same name as before": BERT
    + "labels = inputs\nlabels = labels.clone()\ninputs[chosen] = tokenizer.mask_token_id\n",
    "a score of the original at each position": BERT
    + """
for i in range(1, n):
    masked = ids.clone()
    masked[0, i] = tokenizer.mask_token_id
    labels = torch.full_like(ids, -100)
    labels[0, i] = ids[0, i]
    total += model(masked, labels=labels).loss
""",
    "plots with labels": "import matplotlib.pyplot as plt\nplt.pie(x, labels=x)\nax.legend(labels=names)\n",
    "code for old versions too": TRAIN
    + """
try:
    args = TrainingArguments("out", eval_strategy="epoch")
except TypeError:
    args = TrainingArguments("out", evaluation_strategy="epoch")
if transformers.__version__ < "3":
    loss = model(ids, masked_lm_labels=labels)[0]
""",
    "a mask that is replaced by the other spelling": BERT
    + 'text = "The capital is <mask>."\ntext = text.replace("<mask>", "[MASK]")\n',
    "messages about <mask>": BERT
    + """
parser.add_argument("--mask", help="the <mask> token of RoBERTa")
logger.warning("found <mask> in the text")
assert "[MASK]" in text, "write [MASK], not <mask>"
raise ValueError("this is no <mask> of BERT")
""",
    "an element of SVG": BERT + 'text = "<mask>x</mask>"\n',
    "where labels are, not what they are": BERT
    + "label_mask = torch.full_like(ids, tokenizer.mask_token_id)\n",
    "a RoBERTa with the tokenizer of BERT in its own folder": (
        'tok = AutoTokenizer.from_pretrained("klue/roberta-base")\ntok("[MASK] is here")\n'
    ),
    "a ModernBERT with another mask token": (
        'tok = AutoTokenizer.from_pretrained("sbintuitions/modernbert-ja-130m")\ntok("a <mask>")\n'
    ),
    "labels by masked_fill from the originals": BERT
    + "labels = original.masked_fill(ids != tokenizer.mask_token_id, -100)\n"
    + "loss = model(ids, labels=labels).loss\n",
    "-1 elsewhere": BERT
    + "cache['a'][0] = -1\nspans = [i if i else -1 for i in z]\n"
    + "loss = model(ids, labels=batch.pop('labels')).loss\n",
    "clustering": "labels = kmeans.fit(x).labels_\nlabels[labels == 3] = -1\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_is_found_at_its_line_and_the_fix_cures_it(name):
    code, source, (wrong, right) = BROKEN[name]
    findings = lint_source(source, "file.py")
    line = next(i for i, text in enumerate(source.split("\n"), 1) if "#!" in text)
    assert [(finding.code, finding.line) for finding in findings] == [(code, line)]
    (finding,) = findings
    assert finding.path == "file.py"
    assert finding.column >= 1
    assert finding.fix
    assert lint_source(source.replace(wrong, right)) == []


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_source_has_no_finding(name):
    assert lint_source(HEALTHY[name]) == []


def test_every_rule_has_a_broken_source_and_enough_sources_of_each_kind():
    assert {rule.code for rule in RULES} == {code for code, *_ in BROKEN.values()}
    assert len(BROKEN) >= 12
    assert len(HEALTHY) >= 12


def test_two_mistakes_in_one_call_are_two_findings():
    codes = [f.code for f in lint_source(BERT + "model(input_ids, masked_lm_labels=input_ids)")]
    assert sorted(codes) == ["labels-are-inputs", "old-label-keyword"]


# Notebooks ----------------------------------------------------------------------------------------


def notebook(*cells, **metadata):
    """A notebook of code cells, given as text or as lines; a dictionary is a cell as it is."""
    made = [
        cell if isinstance(cell, dict) else {"cell_type": "code", "source": cell} for cell in cells
    ]
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4})


def test_a_notebook_is_read_across_its_cells_with_magics_left_out():
    text = notebook(
        "!pip install transformers \\\n  --quiet\n%matplotlib inline\n?print\nmodel??\nfiles = !ls",
        {"cell_type": "markdown", "source": ["model(masked_lm_labels=1)"]},
        ["%%time\n", "from transformers import BertForMaskedLM\n", "model = BertForMaskedLM(c)"],
        "%%bash\nrm -rf nothing; model(x, masked_lm_labels=y)",
        "if True:\n    %time x = 1\nawait run()\nloss = model(x, masked_lm_labels=y)",
    )
    findings = lint_notebook(text, "n.ipynb")
    assert [(f.code, f.cell, f.line) for f in findings] == [("old-label-keyword", 4, 4)]
    assert findings[0].place == "n.ipynb:cell 4:4:17"


def test_a_percent_sign_in_an_expression_is_no_magic():
    cell = 'text = ("%s"\n        % name)\nmodel = BertForMaskedLM(c)\nmodel(x, lm_labels=y)'
    assert [f.line for f in lint_notebook(notebook(cell))] == [4]
    continued = "x = a \\\n    % b\n%matplotlib inline"
    assert lint_notebook(notebook(continued)) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"kernelspec": {"language": "R"}},
        {"kernelspec": {"name": "julia-1.9"}, "language_info": {"name": "julia"}},
    ],
)
def test_notebooks_of_other_kernels_are_left_alone(metadata):
    assert lint_notebook(notebook("x <- c(1, 2)", **metadata)) == []


def test_a_cell_that_does_not_parse_does_not_hide_the_others():
    text = notebook("def f(:", BERT, "model(x, masked_lm_labels=y)")
    assert [(f.code, f.cell) for f in lint_notebook(text)] == [
        ("does-not-parse", 0),
        ("old-label-keyword", 2),
    ]


def test_notebooks_of_format_3():
    cells = [{"cell_type": "code", "input": BERT + "model(x, masked_lm_labels=y)"}]
    text = json.dumps({"worksheets": [{"cells": cells}], "metadata": {}, "nbformat": 3})
    assert [f.code for f in lint_notebook(text)] == ["old-label-keyword"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"cells": 5}', '{"cells": [3]}', "[" * 100_000, "null", "{}"]
)
def test_what_is_no_notebook_is_a_finding(text):
    assert [f.code for f in lint_notebook(text)] == ["does-not-parse"]


# Hostile files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "(" * 5000 + ")" * 5000,
        "-" * 200_000 + "1",
        "x = " + "a." * 50_000 + "b",
        "x = 1" + " + 1" * 100_000,
        "not " * 100_000 + "x",
        "[" * 150 + "]" * 150,
        "if x:\n    pass\n" + "elif x:\n    pass\n" * 5000,
        "f" + "()" * 20_000,
        "x" + "[0]" * 20_000 + " = tokenizer.mask_token_id",
        "\0",
        "def f():\n\treturn 1\n        return 2",
        "x = '" + "a" * 3_000_000 + "'",
        "x = 1e999999\ny = 9" + "9" * 5000,
        "\ufeffx = 1",
        "async def f():\n    await x\n" * 100,
        "lambda: (yield)",
        "match x:\n    case {'labels': y}: pass",
    ],
    ids=lambda source: repr(source[:12]) + f" {len(source)}",
)
def test_hostile_sources_are_survived(source):
    findings = lint_source(BERT + source)
    assert {finding.code for finding in findings} <= {"does-not-parse"}


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(st.text(max_size=60))
def test_any_text_is_survived(text):
    lint_source(text)
    lint_notebook(text)
    lint_notebook(notebook(text))


def test_nothing_is_run(tmp_path):
    trap = tmp_path / "trap.py"
    marker = tmp_path / "ran"
    trap.write_text(f"open({str(marker)!r}, 'w')\nimport nothing_of_this_name\n")
    (tmp_path / "n.ipynb").write_text(notebook(f"!touch {marker}", f"open({str(marker)!r}, 'w')"))
    assert lint_paths([tmp_path]).findings == ()
    assert not marker.exists()


def test_encodings(tmp_path):
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    bad = tmp_path / "bad.py"
    bad.write_bytes(b"x = '\xe9'\n")
    unknown = tmp_path / "unknown.py"
    unknown.write_bytes(b"# -*- coding: no-such-thing -*-\n")
    sixteen = tmp_path / "sixteen.ipynb"
    sixteen.write_bytes(notebook("x = 1").encode("utf-16"))
    assert lint_file(latin) == []
    for path in (bad, unknown, sixteen):
        (finding,) = lint_file(path)
        assert finding.code == "does-not-parse"
        assert "encoding" in finding.message


def test_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "dos.py"
    path.write_bytes((BERT + "model(x, masked_lm_labels=y)\n").replace("\n", "\r\n").encode())
    assert [f.line for f in lint_file(path)] == [7]


def test_symbolic_links_that_go_round_and_files_met_twice(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "one.py").write_text(BERT + "model(x, masked_lm_labels=y)\n")
    (folder / "loop").symlink_to(tmp_path, target_is_directory=True)
    (folder / "same.py").symlink_to(folder / "one.py")
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    (folder / "self.py").symlink_to(folder / "self.py")
    report = lint_paths([tmp_path, folder / "one.py"])
    assert report.files == 1
    assert len(report.findings) == 1


def test_folders_that_are_not_ones_own_are_left_out(tmp_path):
    for name in (".hidden", "__pycache__", "node_modules", "venv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.py").write_text("print 'no'")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / "ok.py").write_text("")
    assert lint_paths([tmp_path]) == lint.Report((), 1, ())


def test_an_unreadable_file_is_a_finding(tmp_path, monkeypatch):
    path = tmp_path / "x.py"
    path.write_text("")
    monkeypatch.setattr(lint, "LARGEST_FILE", -1)
    assert "are not read" in lint_file(path)[0].message
    monkeypatch.undo()
    path.unlink()
    assert "No such file" in lint_file(path)[0].message


# The healthy code of others: the packages that are installed here ---------------------------------


def test_the_package_itself_is_clean():
    folder = os.path.dirname(lint.__file__)
    report = lint_paths([folder])
    assert report.files >= 10
    assert report.findings == ()


def test_lint_needs_only_the_standard_library():
    source = Path(lint.__file__).read_text(encoding="utf-8")
    names = {
        line.split()[1].split(".")[0]
        for line in source.split("\n")
        if line.startswith(("import ", "from "))
    }
    assert names <= set(sys.stdlib_module_names)


def test_json_is_complete_and_github_is_escaped(tmp_path):
    path = tmp_path / "a,b:100%.py"
    path.write_text(BERT + "model(x, masked_lm_labels=y)\n")
    report = lint_paths([path, tmp_path / "missing"])
    data = json.loads(lint.as_json(report))
    assert data["files"] == 1
    assert data["unusable"] == [str(tmp_path / "missing")]
    assert data["findings"][0].keys() == lint.LintFinding.__dataclass_fields__.keys()
    assert data["findings"][0]["line"] == 7
    (line,) = lint.as_github(report).split("\n")
    assert line.startswith("::error file=")
    assert "a%2Cb%3A100%25.py,line=7,col=10,title=old-label-keyword::" in line
    assert lint.as_text(report).endswith("1 file read, 1 finding.")


def test_github_names_the_cell_of_a_notebook(tmp_path):
    (tmp_path / "n.ipynb").write_text(notebook("x = 1", BERT + "model(x, masked_lm_labels=y)"))
    (line,) = lint.as_github(lint_paths([tmp_path])).split("\n")
    assert ",line=1,col=10," in line
    assert "::cell 1, line 7: " in line


def test_a_warning_about_the_source_is_not_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lint_source(r'x = "\d"; assert (1, 2)') == []
