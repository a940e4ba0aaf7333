"""The mistakes that are written into a module, found in its syntax tree."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = [
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("clamp_min", "clamp_max"),
    ("floor", "ceil"),
    ("any", "all"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("zero_", "fill_"),
    ("sum", "mean"),
]
_TWINS = dict(_PAIRS) | {second: first for first, second in _PAIRS}
# Without the first three a tensor lies on the CPU, unpinned: where tests run without a GPU nothing changes. The
# last is a check of the code by itself, which only fails where something else is wrong.
_UNSEEN_KEYWORDS = ("device", "pin_memory", "non_blocking", "strict")
_SYMMETRIC = ("min", "max", "minimum", "maximum", "isclose", "equal", "dot")


class Mutant(NamedTuple):
    """One mistake.

    Attributes:
        path: file below the root of the repository.
        scope: dotted names of the classes and functions around it; empty at the top of the module.
        operator: kind of mistake.
        line: line of the file, from 1.
        start, end: bytes of the file that are replaced.
        before, after: what is replaced, and by what.
        repeat: how many equal mistakes the scope has before this one.
    """

    path: str
    scope: str
    operator: str
    line: int
    start: int
    end: int
    before: str
    after: str
    repeat: int

    @property
    def name(self) -> str:
        """Name that stays the same while other lines of the file change."""
        count = f" #{self.repeat + 1}" if self.repeat else ""
        return f"{self.path}::{self.scope or '<module>'}: {self.before} -> {self.after}{count}"

    def write(self, source: str) -> str:
        """``source`` with this mistake in it."""
        text = source.encode()
        return (text[: self.start] + self.after.encode() + text[self.end :]).decode()


class _Edit(NamedTuple):
    node: ast.AST
    after: str
    operator: str
    scope: tuple[str, ...]


def find_mutants(source: str, path: str) -> list[Mutant]:
    """All mistakes that can be made in ``source``, in its order, each once.

    Raises:
        SyntaxError: ``source`` is no Python.
    """
    lines = source.encode().splitlines(keepends=True)
    starts = [0, *itertools.accumulate(len(line) for line in lines)]
    places: dict[tuple[int, int, str], _Edit] = {}
    for edit in _edits(ast.parse(source), (), None):
        node = edit.node
        start = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        places.setdefault((start, end, edit.after), edit)
    mutants: list[Mutant] = []
    counts: dict[tuple[str, str, str], int] = {}
    for (start, end, after), edit in sorted(places.items(), key=lambda item: item[0]):
        before = " ".join(source.encode()[start:end].decode().split())
        scope = ".".join(edit.scope)
        repeat = counts[scope, before, after] = counts.get((scope, before, after), -1) + 1
        line = edit.node.lineno  # type: ignore[attr-defined]
        mutants.append(Mutant(path, scope, edit.operator, line, start, end, before, after, repeat))
    return mutants


def _edits(node: ast.AST, scope: tuple[str, ...], first: str | None) -> Iterator[_Edit]:
    """Edits of ``node`` and of what is inside it; ``first`` is the first parameter of the function around it."""
    if _is_left_alone(node):
        return
    inner_scope, inner_first = scope, first
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        inner_scope = (*scope, node.name)
    if isinstance(node, ast.FunctionDef):
        inner_first = _first_parameter(node)
    for operator, target, after in _mistakes(node, first):
        text = after if isinstance(after, str) else f"({ast.unparse(after)})"
        yield _Edit(target, text, operator, scope)
    for child in _children(node):
        yield from _edits(child, inner_scope, inner_first)


def _is_left_alone(node: ast.AST) -> bool:
    """Messages, what is only there for type checkers, and arguments whose loss nobody could see."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.keyword) and node.arg in _UNSEEN_KEYWORDS:
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    return isinstance(node, ast.FunctionDef) and any("overload" in ast.unparse(d) for d in node.decorator_list)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _first_parameter(function: ast.FunctionDef) -> str | None:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    return next((name for name in names if name not in ("self", "cls")), None)


_Mistakes = Iterator[tuple[str, ast.AST, "ast.expr | str"]]


def _mistakes(node: ast.AST, first: str | None) -> _Mistakes:
    """Kind, replaced node and its replacement, of ``node`` alone."""
    for kinds, mistakes in _MISTAKES:
        if isinstance(node, kinds):
            yield from mistakes(node)
    if isinstance(node, ast.Return) and node.value and first and ast.unparse(node.value) != first:
        yield "returned argument", node.value, ast.Name(first)


def _flipped_comparisons(node: ast.Compare) -> _Mistakes:
    for index, operator in enumerate(node.ops):
        if other := _COMPARE.get(type(operator)):
            changed = copy.deepcopy(node)
            changed.ops[index] = other()
            yield "comparison", node, changed


def _swapped_arithmetic(node: ast.BinOp | ast.AugAssign) -> _Mistakes:
    if other := _ARITHMETIC.get(type(node.op)):
        changed = copy.deepcopy(node)
        changed.op = other()
        yield "arithmetic", node, ast.unparse(changed) if isinstance(changed, ast.AugAssign) else changed


def _dropped_signs(node: ast.UnaryOp) -> _Mistakes:
    if isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        yield "dropped sign", node, node.operand


def _and_or(node: ast.BoolOp) -> _Mistakes:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield "and/or", node, ast.BoolOp(other, node.values)


def _negated_conditions(node: ast.If | ast.While | ast.IfExp | ast.comprehension) -> _Mistakes:
    for condition in node.ifs if isinstance(node, ast.comprehension) else [node.test]:
        yield "negated condition", condition, ast.UnaryOp(ast.Not(), condition)


def _other_constants(node: ast.Constant) -> _Mistakes:
    if isinstance(node.value, bool):
        yield "boolean", node, ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield "constant", node, ast.Constant(node.value + 1)
        yield "constant", node, ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield "constant", node, ast.Constant(node.value + 1.0)


def _other_arguments(node: ast.Call) -> _Mistakes:
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _UNSEEN_KEYWORDS:
            changed = copy.deepcopy(node)
            del changed.keywords[index]
            yield "dropped keyword", node, changed
    if any(isinstance(each, ast.Starred) for each in node.args) or _name_of(node.func) in _SYMMETRIC:
        return
    for index in range(len(node.args) - 1):
        if ast.unparse(node.args[index]) == ast.unparse(node.args[index + 1]):
            continue
        changed = copy.deepcopy(node)
        changed.args[index : index + 2] = reversed(changed.args[index : index + 2])
        yield "swapped arguments", node, changed


def _other_function(node: ast.Call) -> _Mistakes:
    if twin := _TWINS.get(_name_of(node.func)):
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = twin
        else:
            changed.func = ast.Name(twin)
        yield "min/max", node, changed


def _name_of(function: ast.expr) -> str:
    """``max`` of ``max`` and of ``torch.max``."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _dropped_calls(node: ast.Call) -> _Mistakes:
    """``x.y.clamp_min(1)`` becomes ``x.y``, ``f(x)`` becomes ``x``, ``x.copy()`` becomes ``x``."""
    function = node.func
    is_chain = isinstance(function, ast.Attribute) and not isinstance(function.value, ast.Name)
    if node.args and not is_chain and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
        yield "dropped call", node, node.args[0]
    elif isinstance(function, ast.Attribute) and (is_chain or not node.args):
        yield "dropped call", node, function.value


def _dropped_statements(node: ast.AugAssign | ast.Expr | ast.Assign) -> _Mistakes:
    """What has an effect; a local name that is never assigned would only be a NameError."""
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    is_kept = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    if isinstance(node, ast.AugAssign) or is_call or is_kept:
        yield "dropped statement", node, "pass"


# In this order: where two kinds make the same text of the same node, the first names it.
_MISTAKES: list[tuple[Any, Callable[[Any], _Mistakes]]] = [
    (ast.Compare, _flipped_comparisons),
    (ast.BinOp | ast.AugAssign, _swapped_arithmetic),
    (ast.UnaryOp, _dropped_signs),
    (ast.BoolOp, _and_or),
    (ast.If | ast.While | ast.IfExp | ast.comprehension, _negated_conditions),
    (ast.Constant, _other_constants),
    (ast.Call, _other_arguments),
    (ast.Call, _other_function),
    (ast.Call, _dropped_calls),
    (ast.AugAssign | ast.Expr | ast.Assign, _dropped_statements),
]
