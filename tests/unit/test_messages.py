"""What a learner reads while working comes in English, or in the language of a catalog."""

import functools
import importlib.resources
import io
import re

import pytest
import torch
from babel.messages.mofile import read_mo

from mlmtutor import _messages, alignment, explain_error, load_tutor
from mlmtutor._messages import template, translated
from mlmtutor.figure import Figure
from mlmtutor.lessons import lesson_01
from mlmtutor.lessons.exercise import NOT_WRITTEN, NOTHING, WrongAnswer
from tools import messages, translate

HAN = re.compile("[\u3400-\u9fff]")
OTHERS = ("lesson_08", "lesson_09", "lesson_10")  # not translated yet


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("MLMTUTOR_LANG", "zh_CN")


@functools.cache
def said():
    return {text: (place, example) for text, place, example in messages.said()}


# --- The catalog ---


@pytest.mark.slow
def test_compiled_catalog_is_fresh():
    """After a change: ``make zh``."""
    known = translate.translations()
    packed = importlib.resources.files("mlmtutor") / "locale/zh_CN/LC_MESSAGES/mlmtutor.mo"
    compiled = translate.compiled(known, said())
    assert {m.id: m.string for m in read_mo(io.BytesIO(packed.read_bytes())) if m.id} == compiled
    assert packed.read_bytes() == translate.mo(compiled)


@pytest.mark.slow  # it asks each checker about each mistake
def test_catalog_has_each_message():
    """After a change: ``python -m tools.translate update``, then the catalog, then ``make zh``."""
    known = translate.translations()
    wanted = {text for text, (place, _) in said().items() if not place.startswith(OTHERS)}
    assert len(wanted) > 400
    assert {text for text in wanted if text not in known} == set()


@pytest.mark.slow  # it asks each checker about each mistake
def test_each_filled_template_comes_in_chinese_with_its_values(chinese):
    known = translate.translations()
    filled = {key: example for key, (_, example) in said().items() if example}
    assert len(filled) > 60
    for key, example in filled.items():
        assert template(example)[0] == key
        found = translated(example)
        if key in known:
            assert HAN.search(found), example
            assert all(value in found for value in template(example)[1]), example


# --- Which language ---


def test_translated_is_english_by_default(monkeypatch):
    for name in ("MLMTUTOR_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    _messages._catalog.cache_clear()
    assert translated(NOTHING) == NOTHING
    _messages._catalog.cache_clear()


def test_translated_follows_the_locale(monkeypatch):
    monkeypatch.delenv("MLMTUTOR_LANG")
    monkeypatch.setenv("LANGUAGE", "zh_CN.UTF-8")
    _messages._catalog.cache_clear()
    assert HAN.search(translated(NOTHING))
    monkeypatch.setenv("MLMTUTOR_LANG", "en")  # it outranks the locale
    assert translated(NOTHING) == NOTHING
    monkeypatch.undo()
    _messages._catalog.cache_clear()


@pytest.mark.parametrize("text", ["", "No catalog has this: 3 of `x`.", "{0} {}"])
def test_translated_leaves_an_unknown_text_alone(text, chinese):
    assert translated(text) == text


def test_template_takes_out_what_differs():
    text = "In 'a b', `x` isn't (2, 8): positions 4, 5 are 1,000 and -0.5, not 10. See ##man."
    key, values = template(text)
    assert key == "In {0}, {1} isn't {2}: positions {3} are {4} and {5}, not {6}. See {7}."
    assert values == ["'a b'", "`x`", "(2, 8)", "4, 5", "1,000", "-0.5", "10", "##man"]


# --- Where they are read ---


def not_written(*arguments):
    raise NotImplementedError


def test_exercise_speaks_chinese(chinese, capsys):
    check = lesson_01.check_labels_for_masked
    for wrong, _ in check.mistakes:
        with pytest.raises(WrongAnswer) as caught:
            check(wrong)
        assert HAN.search(str(caught.value))
        assert "{" not in str(caught.value)
    check(check.right)
    check(not_written)
    first, second = capsys.readouterr().out.splitlines()
    assert HAN.search(first)
    assert HAN.search(second)
    assert second == translated(NOT_WRITTEN)


@pytest.mark.parametrize(
    "answer",
    [
        lambda ids, old, mask: ids[0],
        lambda ids, old, mask: 3,
        lambda ids, old, mask: lesson_01._labels(ids, old, mask).int(),
        lambda ids, old, mask: torch.full_like(ids, -100),
        lambda ids, old, mask: undefined,  # noqa: F821
        lambda ids, old, mask: None,
    ],
)
def test_exercise_says_in_chinese_what_no_mistake_says(answer, chinese):
    with pytest.raises(WrongAnswer) as caught:
        lesson_01.check_labels_for_masked(answer)
    assert not re.search("[A-Z][a-z]+ [a-z]+ ", str(caught.value))
    assert HAN.search(str(caught.value))


def test_alignment_table_speaks_chinese_and_leaves_tokens_alone(chinese):
    _, tokenizer = load_tutor()
    ids = tokenizer("position token scored", return_tensors="pt")["input_ids"]
    table = alignment({"input_ids": ids, "labels": ids}, tokenizer)
    for shown in (str(table), table._repr_html_()):
        assert all(word in shown for word in ("位置", "计入损失", "position", "token", "scored"))
        assert "5 个位置中有 5 个" in shown
    assert table.summary.startswith("5 of 5 positions are scored")  # for programs


def test_figure_speaks_chinese(chinese):
    known = "The labels join at the last step: they pick the number that becomes the loss."
    figure = Figure("<svg/>", alt="Only here.", caption=known)
    assert f"<figcaption>{translated(known)}</figcaption>" in figure._repr_html_()
    assert HAN.search(repr(figure))


def test_explain_error_speaks_chinese(chinese):
    for text in ("unknown text", "IndexError: Target -1 is out of bounds."):
        told = explain_error(text)
        assert HAN.search(told.means)
        assert HAN.search(told.fix)
        assert str(told).startswith("表示什么")
    assert "2.4.0" in told.said_by
