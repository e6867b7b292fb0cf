"""Check yourself: three questions a lesson, and Python decides which choice is right."""

import tomllib

import pytest
import stored

QUIZ = tomllib.loads((stored.ROOT / "notebooks" / "quiz.toml").read_text("utf-8"))
QUESTIONS = [
    pytest.param(question, id=f"{lesson}-{number}")
    for lesson, questions in QUIZ.items()
    for number, question in enumerate(questions, 1)
]


def test_quiz_has_three_questions_a_lesson():
    assert {lesson: len(questions) for lesson, questions in QUIZ.items()} == {
        (path.name[:2] if path in stored.CORE else path.stem): 3 for path in stored.FULL
    }


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_has_one_right_choice_and_python_says_which(question):
    space = {}
    exec(question["code"], space)
    choices = question["choice"]
    assert len(choices) >= 3
    assert all(len(choice["why"].split()) >= 4 for choice in choices)
    holds = [bool(eval(choice["holds"], space)) for choice in choices]
    assert holds == [choice.get("right", False) for choice in choices]
    assert sum(holds) == 1
