"""Small bugs as replacements of a piece of source text; everything around the piece keeps its formatting."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE = {
    ast.Lt: [("<", "<=", "comparison"), ("<", ">", "comparison")],
    ast.LtE: [("<=", "<", "comparison"), ("<=", ">=", "comparison")],
    ast.Gt: [(">", ">=", "comparison"), (">", "<", "comparison")],
    ast.GtE: [(">=", ">", "comparison"), (">=", "<=", "comparison")],
    ast.Eq: [("==", "!=", "comparison")],
    ast.NotEq: [("!=", "==", "comparison")],
    ast.Is: [("is", "is not", "missing negation")],
    ast.IsNot: [("is not", "is", "missing negation")],
    ast.In: [("in", "not in", "missing negation")],
    ast.NotIn: [("not in", "in", "missing negation")],
}
_ARITHMETIC = {
    ast.Add: [("+", "-")],
    ast.Sub: [("-", "+")],
    ast.Mult: [("*", "+")],
    ast.Div: [("/", "//")],
    ast.FloorDiv: [("//", "/")],
    ast.Mod: [("%", "//")],
}
_PAIRS = (
    "lstrip rstrip, startswith endswith, lower upper, min max, find rfind, split rsplit, partition rpartition, "
    "any all, append extend, ljust rjust, floor ceil, values keys, issubset issuperset, isdigit isalpha, "
    "union intersection"
)
_TWINS = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), reversed(pair.split()))}
_MOST_LINES = 6


@dataclass(frozen=True)
class Function:
    """A function or method of a module's top level or of a class there.

    Attributes:
        path: of the file, relative to the library's root.
        qualname: ``name`` or ``Class.name``.
        first, last: lines from ``def`` to the end.
        literals: strings and whole numbers that its text holds.
    """

    path: str
    qualname: str
    first: int
    last: int
    literals: tuple[str | int, ...]

    @property
    def module(self) -> str:
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]


@dataclass(frozen=True, order=True)
class Mutation:
    """``old`` at offset ``start`` of the file becomes ``new``; lines ``first`` to ``last`` hold ``old``."""

    start: int
    old: str
    new: str
    kind: str
    first: int
    last: int

    def near(self, other: Mutation) -> bool:
        """Whether the two touch the same or neighbouring lines."""
        return self.first <= other.last + 1 and other.first <= self.last + 1


def apply(text: str, mutations: list[Mutation]) -> str:
    """``text`` with all mutations, which do not overlap."""
    for mutation in sorted(mutations, reverse=True):
        end = mutation.start + len(mutation.old)
        assert text[mutation.start : end] == mutation.old, mutation
        text = text[: mutation.start] + mutation.new + text[end:]
    return text


def functions(path: str, text: str) -> Iterator[tuple[Function, list[Mutation]]]:
    """Every function worth mutating, with its mutations in order of position. A file that does not parse has none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    source = _Source(text)
    for node in tree.body:
        members = [(node, "")] if not isinstance(node, ast.ClassDef) else [(m, f"{node.name}.") for m in node.body]
        for member, prefix in members:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                found = sorted(set(_mutations(member, source)))
                if found:
                    literals = dict.fromkeys(_literals(member))
                    assert member.end_lineno is not None
                    yield (
                        Function(path, prefix + member.name, member.lineno, member.end_lineno, tuple(literals)),
                        found,
                    )


class _Source:
    """Turns positions of syntax nodes into offsets of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0]
        for line in re.findall(r"[^\n]*\n|[^\n]+", text):
            self.starts.append(self.starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        start = self.starts[line - 1]
        if self.text.isascii():
            return start + column
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return start + len(self.text[start:end].encode("utf-8")[:column].decode("utf-8"))

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.offset(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self.offset(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def line_of(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    def mutation(self, start: int, end: int, new: str, kind: str) -> Iterator[Mutation]:
        old = self.text[start:end]
        first, last = self.line_of(start), self.line_of(max(start, end - 1))
        if old != new and last - first < _MOST_LINES:
            yield Mutation(start, old, new, kind, first, last)


def _literals(function: ast.FunctionDef) -> Iterator[str | int]:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and type(node.value) in (str, int) and len(repr(node.value)) < 24:
            yield node.value


def _mutations(function: ast.FunctionDef, source: _Source) -> Iterator[Mutation]:
    for default in [*function.args.defaults, *function.args.kw_defaults]:
        if isinstance(default, ast.Constant):
            yield from _constant(default, source, "wrong default")
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    for statement in body:
        yield from _within(statement, source)
    yield from _dropped(body, source)


def _within(node: ast.AST, source: _Source) -> Iterator[Mutation]:
    """Mutations of a node and of what it holds; annotations, messages of errors and f-strings are left alone."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Compare):
        yield from _compare(node, source)
    elif isinstance(node, ast.BoolOp):
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            yield from _between(left, right, *words, "boolean operator", source)
    elif isinstance(node, ast.BinOp):
        for old, new in _ARITHMETIC.get(type(node.op), []):
            yield from _between(node.left, node.right, old, new, "arithmetic", source)
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
        words = ("+=", "-=") if isinstance(node.op, ast.Add) else ("-=", "+=")
        yield from _between(node.target, node.value, *words, "arithmetic", source)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield from _without(node, node.operand, "not", "missing negation", source)
    elif isinstance(node, ast.Constant):
        yield from _constant(node, source, "wrong constant")
    elif isinstance(node, ast.Call):
        yield from _call(node, source)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield from _without(node, node.value, "return", "missing return", source)
    elif isinstance(node, ast.If) and node.orelse:
        yield from _swapped_test(node, source)
    elif isinstance(node, ast.Break | ast.Continue):
        word = "continue" if isinstance(node, ast.Break) else "break"
        yield from source.mutation(*source.span(node), word, "wrong jump")
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.AnnAssign) and child is node.annotation:
            continue
        if isinstance(child, ast.arguments | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield from _within(child, source)
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            yield from _dropped(block, source)


def _between(left: ast.AST, right: ast.AST, old: str, new: str, kind: str, source: _Source) -> Iterator[Mutation]:
    """Replace the operator between two operands."""
    start, end = source.span(left)[1], source.span(right)[0]
    gap = source.text[start:end]
    word = rf"\b{old}\b" if old[0].isalpha() else re.escape(old)
    found = re.search(word, gap)
    if found and "#" not in gap:
        yield from source.mutation(start + found.start(), start + found.end(), new, kind)


def _without(node: ast.AST, operand: ast.AST, word: str, kind: str, source: _Source) -> Iterator[Mutation]:
    """Leave out the word before an operand, unless a bracket that is no part of the operand opens between them."""
    start, end = source.span(node)[0], source.span(operand)[0]
    if source.text[start:end] == word + " " and node.end_lineno == node.lineno:  # type: ignore[attr-defined]
        # The operand's first character stays in the piece, so that the bug still has a place in the text.
        yield from source.mutation(start, end + 1, source.text[end], kind)


def _compare(node: ast.Compare, source: _Source) -> Iterator[Mutation]:
    left = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        for old, new, kind in _COMPARE[type(operator)]:
            yield from _between(left, right, old, new, kind, source)
        left = right


def _constant(node: ast.Constant, source: _Source, kind: str) -> Iterator[Mutation]:
    start, end = source.span(node)
    value = node.value
    if isinstance(value, bool):
        yield from source.mutation(start, end, str(not value), kind)
    elif isinstance(value, int) and source.text[start:end].isdigit():
        shift = "off by one" if kind == "wrong constant" else kind
        for new in (value + 1, value - 1):
            if new >= 0:
                yield from source.mutation(start, end, str(new), shift)
    elif isinstance(value, str) and 0 < len(value) <= 12 and "\n" not in source.text[start:end]:
        text = source.text[start:end]
        if text[0] in "'\"" and text[:3] not in ("'''", '"""') and "\\" not in text and text[1:-1] == value:
            quote = text[0]
            for new in (value[:-1], value + " " if value.strip() else value * 2, value.upper(), value.lower()):
                if quote not in new:
                    yield from source.mutation(start, end, f"{quote}{new}{quote}", kind)


def _call(node: ast.Call, source: _Source) -> Iterator[Mutation]:
    plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    if len(plain) == len(node.args):
        for left, right in itertools.pairwise(plain):
            (start, a), (b, end) = source.span(left), source.span(right)
            text = source.text
            if "\n" not in text[start:end] and text[start:a] != text[b:end]:
                swapped = text[b:end] + text[a:b] + text[start:a]
                yield from source.mutation(start, end, swapped, "swapped arguments")
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _TWINS:
        end = source.span(node.func)[1]
        yield from source.mutation(end - len(name), end, _TWINS[name], "wrong function")


def _swapped_test(node: ast.If, source: _Source) -> Iterator[Mutation]:
    """``if x:`` with an else part becomes ``if not x:``."""
    if isinstance(node.test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        start, _ = source.span(node.test)
        line_start = source.text.rfind("\n", 0, start) + 1
        head = source.text[line_start:start]
        if head.strip() in ("if", "elif"):
            # Anchored at the test itself, so that the replaced piece is never empty.
            end = source.span(node.test)[1]
            yield from source.mutation(start, end, f"not {source.text[start:end]}", "added negation")


def _dropped(block: list[ast.stmt], source: _Source) -> Iterator[Mutation]:
    """Leave out an ``if`` without ``else`` that has neighbours in its block."""
    for statement in block:
        if len(block) > 1 and isinstance(statement, ast.If) and not statement.orelse:
            start = source.starts[statement.lineno - 1]
            assert statement.end_lineno is not None
            end = source.starts[statement.end_lineno] if statement.end_lineno < len(source.starts) else len(source.text)
            if source.text[start : source.offset(statement.lineno, statement.col_offset)].strip() == "":
                yield from source.mutation(start, end, "", "dropped branch")
