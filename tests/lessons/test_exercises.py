"""Every checker accepts the reference, rejects each named mistake, and says which it is."""

import inspect

import stored
import pytest
from mistakes import MISTAKES

from mlmtutor import checks

CHECKERS = {name: value for name, value in vars(checks).items() if name.startswith("check_")}
SOLUTIONS = {
    name: function
    for path in stored.PATHS
    for name, function in stored.solutions(stored.read(path)).items()
}
CASES = [(checker, name) for checker, cases in MISTAKES.items() for name in cases]


def reference(checker):
    return SOLUTIONS[checker.removeprefix("check_")]


def test_each_checker_has_a_solution_and_five_mistakes():
    assert set(CHECKERS) == set(MISTAKES)
    for checker in CHECKERS:
        assert checker.removeprefix("check_") in SOLUTIONS
        assert len(MISTAKES[checker]) >= 5, checker


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_reference_is_accepted(checker, capsys):
    CHECKERS[checker](reference(checker))
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(("checker", "name"), CASES)
def test_a_mistake_is_named(checker, name):
    function, message = MISTAKES[checker][name]
    with pytest.raises(checks.WrongAnswer) as caught:
        CHECKERS[checker](function)
    assert message in str(caught.value)


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_has_its_own_message(checker):
    messages = set()
    for function, _ in MISTAKES[checker].values():
        with pytest.raises(checks.WrongAnswer) as caught:
            CHECKERS[checker](function)
        messages.add(str(caught.value))
    assert len(messages) == len(MISTAKES[checker])


@pytest.mark.parametrize("checker", CHECKERS)
def test_an_unwritten_answer_is_no_error(checker, capsys):
    def stub(*arguments, **options):
        raise NotImplementedError

    CHECKERS[checker](stub)
    assert capsys.readouterr().out.startswith("Not written yet")


@pytest.mark.parametrize("checker", CHECKERS)
def test_an_error_of_the_reader_is_left_alone(checker):
    def broken(*arguments, **options):
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        CHECKERS[checker](broken)


def test_a_wrong_answer_shows_its_message_alone():
    assert checks.WrongAnswer("why")._render_traceback_() == ["✗ why"]


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_docstring_shows_the_call(checker):
    assert f"{checker.removeprefix('check_')}(" in inspect.getdoc(CHECKERS[checker])
