"""pyproject.toml, constraints.txt and environment.yml say the same."""

import re
import tomllib

import pytest
import stored
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((stored.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA = yaml.safe_load((stored.ROOT / "environment.yml").read_text("utf-8"))
CONDA_LINES = [line for line in CONDA["dependencies"] if isinstance(line, str)]
# conda's names of packages that PyPI calls otherwise
PYPI_NAME = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}

EXTRAS = PYPROJECT["optional-dependencies"]
RANGES = {
    canonicalize_name(requirement.name): requirement.specifier
    for line in [*PYPROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    for requirement in [Requirement(line)]
}
PINS = dict(
    line.split("==")
    for line in (stored.ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
)


def test_pins_lie_inside_their_ranges():
    for name, specifier in RANGES.items():
        assert name in PINS, f"constraints.txt has no line for {name}"
        assert specifier.contains(PINS[name]), f"{name}: {PINS[name]} is not in {specifier}"


def test_pins_are_exact():
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in PINS.values())


def test_ranges_hold_the_supported_releases():
    assert str(RANGES["nbval"]) == "==0.11.*"
    supported = RANGES["transformers"]
    for release, expected in ("4.56.2", False), ("4.57.0", True), ("5.0.0", True), ("6.0", False):
        assert supported.contains(release) == expected


@pytest.mark.parametrize("line", CONDA_LINES)
def test_conda_line_agrees_with_pyproject(line):
    name, bounds = re.fullmatch(r"([a-z-]+)((?:[<>=!]=?[0-9][0-9.]*,?)*)", line).groups()
    if name == "python":
        assert bounds.replace("=", ">=") == PYPROJECT["requires-python"]
    elif name != "pip":
        assert set(bounds.split(",")) == set(str(RANGES[PYPI_NAME.get(name, name)]).split(","))


def test_conda_has_every_dependency_that_conda_names():
    named = {PYPI_NAME.get(line, line) for line in (re.split("[<>=]", x)[0] for x in CONDA_LINES)}
    assert {"torch", "transformers", "matplotlib", "jupyterlab", "safetensors"} <= named


def test_conda_takes_the_rest_from_one_pip_line():
    [pip] = [line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict)]
    assert len(pip) == 1
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", pip[0]).group(1).split(",")
    assert set(extras) <= set(EXTRAS)
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
