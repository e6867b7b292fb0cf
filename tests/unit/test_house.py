"""The house: no module is too long, and nothing imports upward or in a circle."""

import ast
import graphlib

import stored

PACKAGE = stored.ROOT / "mlmtutor"
MODULES = {
    ".".join(path.relative_to(stored.ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
FLOORS = ["mlmtutor", "mlmtutor.releases", "mlmtutor.doctor", "mlmtutor.lessons"]


def floor(name):
    """Return how high a module stands: a floor may import from itself and from those below."""
    return max(i for i, prefix in enumerate(FLOORS) if f"{name}.".startswith(f"{prefix}."))


def imports(name):
    """Return the modules of the package that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(MODULES[name].read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found & set(MODULES) if module not in (name, "mlmtutor")}


def test_modules_have_at_most_500_lines():
    lines = {n: sum(map(bool, p.read_text("utf-8").split("\n"))) for n, p in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 500} == {}


def test_modules_import_nothing_upward():
    upward = {
        (name, used) for name in MODULES for used in imports(name) if floor(used) > floor(name)
    }
    assert upward == set()


def test_modules_import_in_no_circle():
    graph = {name: imports(name) for name in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES) - 1
