"""Small bugs as replacements of a piece of source text; everything around the piece keeps its formatting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

# An operator as it is written, what may stand there instead, and the kind of bug.
_OPERATORS = {
    ast.Lt: ("<", ("<=", ">"), "comparison"),
    ast.LtE: ("<=", ("<", ">="), "comparison"),
    ast.Gt: (">", (">=", "<"), "comparison"),
    ast.GtE: (">=", (">", "<="), "comparison"),
    ast.Eq: ("==", ("!=",), "comparison"),
    ast.NotEq: ("!=", ("==",), "comparison"),
    ast.Is: ("is", ("is not",), "missing negation"),
    ast.IsNot: ("is not", ("is",), "missing negation"),
    ast.In: ("in", ("not in",), "missing negation"),
    ast.NotIn: ("not in", ("in",), "missing negation"),
    ast.And: ("and", ("or",), "boolean operator"),
    ast.Or: ("or", ("and",), "boolean operator"),
    ast.Add: ("+", ("-",), "arithmetic"),
    ast.Sub: ("-", ("+",), "arithmetic"),
    ast.Mult: ("*", ("+",), "arithmetic"),
    ast.Div: ("/", ("//",), "arithmetic"),
    ast.FloorDiv: ("//", ("/",), "arithmetic"),
    ast.Mod: ("%", ("//",), "arithmetic"),
}
_PAIRS = (
    "lstrip rstrip, startswith endswith, lower upper, min max, find rfind, split rsplit, partition rpartition, "
    "any all, append extend, ljust rjust, floor ceil, values keys, issubset issuperset, isdigit isalpha, "
    "union intersection"
)
_TWINS = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), reversed(pair.split()))}
_MOST_LINES = 6
_LEFT_ALONE = (
    *(ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom),
    *(ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.arguments),
)


class Function(NamedTuple):
    """A function or method of a module's top level or of a class there."""

    path: str  # of the file, relative to the library's root
    qualname: str  # ``name`` or ``Class.name``
    first: int  # line of ``def``
    last: int
    literals: tuple[str | int, ...]  # strings and whole numbers that its text holds

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]


class Mutation(NamedTuple):
    """``old`` at offset ``start`` of the file's UTF-8 becomes ``new``; lines ``first`` to ``last`` hold ``old``."""

    start: int
    old: str
    new: str
    kind: str
    first: int
    last: int

    def near(self, other: Mutation) -> bool:
        """Whether the two touch the same or neighbouring lines."""
        return self.first <= other.last + 1 and other.first <= self.last + 1


def apply(text: str, mutations: Iterable[Mutation]) -> str:
    """``text`` with all mutations, which do not overlap."""
    data = text.encode()
    for mutation in sorted(mutations, reverse=True):
        end = mutation.start + len(mutation.old.encode())
        assert data[mutation.start : end] == mutation.old.encode(), mutation
        data = data[: mutation.start] + mutation.new.encode() + data[end:]
    return data.decode()


def functions(path: str, text: str) -> Iterator[tuple[Function, list[Mutation]]]:
    """Every function worth mutating, with its mutations in order of position. A file that does not parse has none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for holder in tree.body:
        prefix, members = (f"{holder.name}.", holder.body) if isinstance(holder, ast.ClassDef) else ("", [holder])
        for node in members:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
                continue
            finder = _Finder(text)
            finder.visit(node)
            if finder.found:
                constants = [child.value for child in ast.walk(node) if isinstance(child, ast.Constant)]
                literals = dict.fromkeys(v for v in constants if type(v) in (str, int) and len(repr(v)) < 24)
                last = node.end_lineno or node.lineno
                yield Function(path, prefix + node.name, node.lineno, last, tuple(literals)), sorted(finder.found)


class _Finder:
    """Collects the mutations of a function; annotations, messages of errors and f-strings are left alone."""

    def __init__(self, text: str) -> None:
        self.data = text.encode()
        # Syntax trees count bytes from the line's start.
        self.starts = [0, *accumulate(len(line) for line in self.data.splitlines(keepends=True))]
        self.found: set[Mutation] = set()

    def visit(self, node: ast.AST) -> None:
        """Add the mutations of a node and of what it holds."""
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        match node:
            case ast.FunctionDef():
                for default in [*node.args.defaults, *node.args.kw_defaults]:
                    if isinstance(default, ast.Constant):
                        self._constant(default, "wrong default")
                children = node.body[ast.get_docstring(node, clean=False) is not None :]
            case ast.AnnAssign():
                children = [node.value] if node.value else []
            case ast.Compare():
                for (left, right), operator in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
                    self._operator(left, operator, right)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    self._operator(left, node.op, right)
            case ast.BinOp(left=left, right=right) | ast.AugAssign(target=left, value=right):
                self._operator(left, node.op, right)
            case ast.UnaryOp(op=ast.Not()):
                self._without(node, node.operand, "not", "missing negation")
            case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
                self._without(node, node.value, "return", "missing return")
            case ast.Break() | ast.Continue():
                self._add(*self._span(node), "continue" if isinstance(node, ast.Break) else "break", "wrong jump")
            case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript(), orelse=[_, *_]):
                start, end = self._span(node.test)
                if self.data[self.data.rfind(b"\n", 0, start) + 1 : start].strip() in (b"if", b"elif"):
                    self._add(start, end, f"not {self._text(start, end)}", "added negation")
            case ast.Constant():
                self._constant(node, "wrong constant")
            case ast.Call():
                self._call(node)
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            self._branches(block if isinstance(block, list) else [])
        for child in children:
            if not isinstance(child, _LEFT_ALONE):
                self.visit(child)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,  # type: ignore[attr-defined]
            self.starts[node.end_lineno - 1] + node.end_col_offset,  # type: ignore[attr-defined]
        )

    def _text(self, start: int, end: int) -> str:
        return self.data[start:end].decode()

    def _add(self, start: int, end: int, new: str, kind: str) -> None:
        first, last = (self.data.count(b"\n", 0, place) + 1 for place in (start, max(start, end - 1)))
        if self._text(start, end) != new and last - first < _MOST_LINES:
            self.found.add(Mutation(start, self._text(start, end), new, kind, first, last))

    def _operator(self, left: ast.AST, operator: ast.AST, right: ast.AST) -> None:
        word, others, kind = _OPERATORS.get(type(operator), ("", (), ""))
        start, end = self._span(left)[1], self._span(right)[0]
        gap = self._text(start, end)
        found = re.search(rf"\b{word}\b" if word[:1].isalpha() else re.escape(word), gap)
        if found and "#" not in gap:
            for new in others:
                self._add(start + found.start(), start + found.end(), new, kind)

    def _without(self, node: ast.AST, operand: ast.AST, word: str, kind: str) -> None:
        """Leave out the word before an operand, unless a bracket that is no part of the operand opens between them."""
        start, end = self._span(node)[0], self._span(operand)[0]
        if self._text(start, end) == word + " " and node.end_lineno == node.lineno:  # type: ignore[attr-defined]
            # The operand's first character stays in the piece, so that the bug still has a place in the text.
            first = self.data[end:].decode()[0]
            self._add(start, end + len(first.encode()), first, kind)

    def _branches(self, block: list[ast.stmt]) -> None:
        """Leave out an ``if`` without ``else`` that has neighbours in its block."""
        for statement in block if len(block) > 1 else []:
            start = self.starts[statement.lineno - 1]
            own_line = not self.data[start : self._span(statement)[0]].strip()
            if isinstance(statement, ast.If) and not statement.orelse and own_line:
                self._add(start, self.starts[statement.end_lineno], "", "dropped branch")

    def _constant(self, node: ast.Constant, kind: str) -> None:
        (start, end), value = self._span(node), node.value
        text = self._text(start, end)
        new: list[str] = []
        if isinstance(value, bool):
            new = [str(not value)]
        elif isinstance(value, int) and text.isdigit():
            new = [str(number) for number in (value + 1, value - 1) if number >= 0]
            kind = "off by one" if kind == "wrong constant" else kind
        elif isinstance(value, str) and 0 < len(value) <= 12 and text[1:-1] == value and not set(text) & set("\\\n"):
            others = (value[:-1], value + " " if value.strip() else value * 2, value.upper(), value.lower())
            new = [f"{text[0]}{other}{text[0]}" for other in others if text[0] not in other]
        for other in new:
            self._add(start, end, other, kind)

    def _call(self, node: ast.Call) -> None:
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        for left, right in pairwise([] if starred else node.args):
            (start, a), (b, end) = self._span(left), self._span(right)
            if b"\n" not in self.data[start:end]:
                swapped = self._text(b, end) + self._text(a, b) + self._text(start, a)
                self._add(start, end, swapped, "swapped arguments")
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _TWINS:
            end = self._span(node.func)[1]
            self._add(end - len(name), end, _TWINS[name], "wrong function")
