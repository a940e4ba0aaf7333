"""The operators of the mutation run: which mistakes they make of a line, and which they leave alone."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tools.mutants.operators import find_mutants


def mistakes(source: str, operator: str | None = None) -> list[str]:
    """The module with each of the mistakes in it, in canonical spelling."""
    source = textwrap.dedent(source)
    mutants = find_mutants(source, "m.py")
    return [ast.unparse(ast.parse(m.write(source))) for m in mutants if operator in (None, m.operator)]


@pytest.mark.parametrize(
    ("source", "operator", "expected"),
    [
        ("x = a < b", "comparison", ["x = a <= b"]),
        ("x = a >= b", "comparison", ["x = a > b"]),
        ("x = a == b", "comparison", ["x = a != b"]),
        ("x = a is None", "comparison", ["x = a is not None"]),
        ("x = a not in b", "comparison", ["x = a in b"]),
        ("x = a < b <= c", "comparison", ["x = a <= b <= c", "x = a < b < c"]),
        ("x = a + b * c", "arithmetic", ["x = a - b * c", "x = a + b / c"]),
        ("x = m & n", "arithmetic", ["x = m | n"]),
        ("x //= 8", "arithmetic", ["x *= 8"]),
        ("x = not a", "dropped sign", ["x = a"]),
        ("x = -a + ~b", "dropped sign", ["x = a + ~b", "x = -a + b"]),
        ("x = a and b", "and/or", ["x = a or b"]),
        ("x = f(3, 0.5)", "constant", ["x = f(4, 0.5)", "x = f(2, 0.5)", "x = f(3, 1.5)"]),
        ("x = True", "boolean", ["x = False"]),
        ("if a:\n    b()", "negated condition", ["if not a:\n    b()"]),
        ("x = a if b else c", "negated condition", ["x = a if not b else c"]),
        ("x = [a for a in b if a]", "negated condition", ["x = [a for a in b if not a]"]),
        ("x = f(a, k=1, dim=2)", "dropped keyword", ["x = f(a, dim=2)", "x = f(a, k=1)"]),
        ("x = f(a, b, c)", "swapped arguments", ["x = f(b, a, c)", "x = f(a, c, b)"]),
        ("x = a.clamp_min(0.0)", "min/max", ["x = a.clamp_max(0.0)"]),
        ("x = min(a, b)", "min/max", ["x = max(a, b)"]),
        ("x = f(a)", "dropped call", ["x = a"]),
        ("x = a.b.clone()", "dropped call", ["x = a.b"]),
        ("x = a.clone()", "dropped call", ["x = a"]),
        ("self.x = a", "dropped statement", ["pass"]),
        ("x += a", "dropped statement", ["pass"]),
        ("a.zero_()", "dropped statement", ["pass"]),
        (
            "def f(self, a, b):\n    return a + b",
            "returned argument",
            ["def f(self, a, b):\n    return a"],
        ),
    ],
)
def test_an_operator_on_a_line(source: str, operator: str, expected: list[str]) -> None:
    assert sorted(mistakes(source, operator)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError(f'{a + 1} is too large', 2)",
        "assert a == 1",
        "x: Literal[1, 2]",
        "@functools.lru_cache(maxsize=3)\ndef f(x: Annotated[int, 3]) -> Tuple[int, 4]: ...",
        "if TYPE_CHECKING:\n    x = 1 + 2",
        "@overload\ndef f(x=1): ...",
        "x = f'{a + 1}'",
        "'a text'",
        "def f(a):\n    return a",
    ],
)
def test_what_is_left_alone(source: str) -> None:
    assert mistakes(source) == []


@pytest.mark.parametrize("call", ["f(device=d)", "zip(strict=True)", "max(a, b)", "f(a, a)"])
def test_a_mistake_that_nobody_could_see_is_not_made(call: str) -> None:
    assert mistakes(f"x = {call}", "dropped keyword") == []
    assert mistakes(f"x = {call}", "swapped arguments") == []
    assert mistakes(f"x = {call}", "boolean") == []


def test_every_mutant_is_python_and_differs_from_the_code() -> None:
    source = textwrap.dedent(
        """
        class Größe:  # bytes and characters of a line differ
            def wert(self, a, *rest, b=2):
                self.ä = "ü" + f(a[1:], *rest, key=-b)  # both lines have them
                return (
                    self.ä
                    if b > 3 and not a
                    else [x for x in a if x in rest]
                )
        """
    )
    spelled = ast.unparse(ast.parse(source))
    made = mistakes(source)
    assert len(made) >= 12
    assert spelled not in made
    assert len(set(made)) == len(made)


def test_a_name_outlives_changes_elsewhere_and_tells_equal_mistakes_apart() -> None:
    body = "def f(x):\n    y = x + 1\n    return y * (x + 1)\n"
    before = [mutant.name for mutant in find_mutants(body, "m.py")]
    after = [mutant.name for mutant in find_mutants("import os\n\n\n" + body, "m.py")]
    assert before == after
    assert "m.py::f: x + 1 -> (x - 1)" in before
    assert "m.py::f: x + 1 -> (x - 1) #2" in before
    assert len(set(before)) == len(before)


def test_the_scope_of_a_method_is_told() -> None:
    (mutant,) = find_mutants("class A:\n    def f(self):\n        return not self.x\n", "m.py")
    assert (mutant.scope, mutant.line, mutant.before) == ("A.f", 3, "not self.x")
