"""Every exercise accepts its right function, and names each mistake in its own words."""

import importlib
import math

import pytest
import torch

from mlmtutor.lessons.exercise import (
    NOTHING,
    ByHand,
    Exercise,
    WrongAnswer,
    copied,
    names_in,
    outcome,
    same,
)

EXERCISES = {
    f"{number:02}.{name}": value
    for number in range(1, 11)
    for name, value in vars(importlib.import_module(f"mlmtutor.lessons.lesson_{number:02}")).items()
    if isinstance(value, Exercise)
}
every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)


def said(exercise, answer):
    """Return what a reader with this wrong answer is told."""
    with pytest.raises(WrongAnswer) as caught:
        exercise(answer)
    return str(caught.value)


@every_exercise
def test_exercise_accepts_the_right_function(exercise, capsys):
    exercise(exercise.right)
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(
    ("exercise", "number"),
    [(e, n) for e in EXERCISES.values() for n in range(len(e.mistakes))],
    ids=[f"{name}-{n}" for name, e in EXERCISES.items() for n in range(len(e.mistakes))],
)
def test_exercise_names_each_mistake(exercise, number):
    wrong, message = exercise.mistakes[number]
    found = said(exercise, wrong)
    if isinstance(exercise, ByHand):
        assert message in found
    elif isinstance(message, str):
        assert found == message
    else:
        answers = [(case, outcome(wrong, copied(case))) for case in exercise.cases()]
        first = next((c, a) for c, a in answers if not same(a, exercise.right(*copied(c))))
        assert found == message(*first[0], first[1])


@every_exercise
def test_exercise_has_five_mistakes_with_a_sentence_each(exercise):
    told = [message for _, message in exercise.mistakes]  # each is what is said: see above
    assert len(set(told)) == len(told) >= 5


def test_exercises_name_233_mistakes():
    assert len(EXERCISES) == 21
    assert sum(len(exercise.mistakes) for exercise in EXERCISES.values()) >= 233


@every_exercise
def test_exercise_takes_an_unwritten_answer_for_no_error(exercise, capsys):
    def stub(*arguments, **options):
        raise NotImplementedError

    exercise(stub)
    assert capsys.readouterr().out.startswith("Not written yet, or its cell failed")


@every_exercise
def test_exercise_says_that_printing_is_not_returning(exercise):
    assert said(exercise, lambda *arguments, **options: None).startswith(NOTHING)


@every_exercise
def test_exercise_shows_the_frames_of_the_reader_alone(exercise):
    def answer(*arguments, **options):
        return undefined_name  # noqa: F821

    with pytest.raises(WrongAnswer, match="Your function raises NameError") as caught:
        exercise(answer)
    shown = "\n".join(caught.value._render_traceback_())
    assert "undefined_name" in shown
    assert "exercise.py" not in shown


def sizes(value):
    """Yield (path, size) for every size that a function could divide by mistake."""
    if isinstance(value, torch.Tensor):
        yield from ((f"shape[{axis}]", size) for axis, size in enumerate(value.shape))
        yield "numel()", value.numel()
        if not value.is_floating_point():
            yield from (("unique()", value.unique().numel()), ("> 0", int((value > 0).sum())))
    elif isinstance(value, list | tuple):
        yield "len()", len(value)
        for k, entry in enumerate(value[:1]):
            yield from ((f"[{k}].{path}", size) for path, size in sizes(entry))
    elif isinstance(value, int):
        yield "itself", value


def divided_by(exercise, argument, path):
    """Return the right sum divided by one of the sizes in sight."""

    def answer(*arguments):
        size = dict(sizes(arguments[argument])).get(path, 0)
        return exercise.right(*arguments) * exercise.divisor(*arguments) / (size or math.nan)

    return answer


MEANS = {name: e for name, e in EXERCISES.items() if e.divisor}
DIVISORS = [
    pytest.param(e, argument, path, id=f"{name}-{argument}-{path}")
    for name, e in MEANS.items()
    for case in e.cases()[:1]
    for argument, value in enumerate(case)
    for path, _ in sizes(value)
]


@pytest.mark.parametrize(("exercise", "argument", "path"), DIVISORS)
def test_exercise_refuses_the_right_sum_divided_by_another_size(exercise, argument, path):
    found = [dict(sizes(case[argument])).get(path) for case in exercise.cases()]
    wanted = [exercise.divisor(*case) for case in exercise.cases()]
    if found != wanted:  # where both are one number in every case, it is the right divisor
        said(exercise, divided_by(exercise, argument, path))


@every_exercise
def test_exercise_is_tried_on_two_inputs(exercise):
    assert isinstance(exercise, ByHand) or len(exercise.cases()) >= 2


def test_exercise_that_asks_without_a_name_refuses_it():
    asked = [exercise for exercise in EXERCISES.values() if exercise.without]
    assert asked
    for exercise in asked:

        def answer(*arguments, exercise=exercise):
            return exercise.right(*arguments)

        name, code = exercise.without[0], answer.__code__
        answer.__code__ = code.replace(co_names=(*code.co_names, name))
        assert said(exercise, answer).endswith(f"without {name}.")


def test_names_in_sees_the_keywords_of_a_call():
    answer = lambda loss: loss(ignore_index=0)  # noqa: E731
    assert "ignore_index" in set(names_in(answer.__code__))


def test_exercise_refuses_what_is_not_a_function():
    with pytest.raises(TypeError, match="pass your function itself"):
        next(iter(EXERCISES.values()))(3)
