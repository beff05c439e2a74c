"""The Python function or class around a line: by parsing where the text is whole, else by indentation."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["function", "class", "module"]

_DEFINITION = re.compile(r"\s*(?:async\s+)?(def|class)\s+(\w+)")
_TRIPLE = re.compile(r'"""|\'\'\'')
_FAR = 10**6


@dataclass(frozen=True)
class Symbol:
    """What a line belongs to: ``Class.method`` and the like; the empty name is the module."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Around:
    """What walking upwards from a line found.

    Attributes:
        names: enclosing definitions, innermost first: (``def`` or ``class``, name).
        indent: a definition further out would be indented less than this; 0 if there is none further out.
        top: the last line looked at.
    """

    names: tuple[tuple[str, str], ...]
    indent: int
    top: int

    def symbol(self) -> Symbol:
        """The innermost definition."""
        if not self.names:
            return Symbol("", "module")
        name = ".".join(name for _, name in reversed(self.names))
        return Symbol(name, "function" if self.names[0][0] == "def" else "class")


def indent_of(line: str) -> int:
    """Columns of white space in front; a line without text counts as infinitely deep."""
    text = line.expandtabs(8)
    bare = text.lstrip()
    return len(text) - len(bare) if bare else _FAR


def walk_up(lines: Mapping[int, str], start: int, indent: int) -> Around:
    """Enclosing definitions of something indented by ``indent`` below or at line ``start``, as far up as lines are
    known without a gap.

    Text in triple quotes and closing brackets at the start of a line do not end a block.
    """
    names: list[tuple[str, str]] = []
    number = start
    in_string = ""
    while indent > 0 and number in lines:
        line = lines[number]
        number -= 1
        quotes = _TRIPLE.findall(line)
        if in_string:
            if in_string in quotes:
                in_string = ""
                if indent_of(line) >= indent or not _DEFINITION.match(line):
                    continue
            else:
                continue
        elif quotes and quotes.count(quotes[-1]) % 2 and not _opens(line, quotes[-1], lines.get(number, "")):
            in_string = quotes[-1]
            continue
        depth = indent_of(line)
        if depth >= indent:
            continue
        definition = _DEFINITION.match(line)
        if definition:
            names.append((definition[1], definition[2]))
            indent = depth
        elif line.lstrip()[0] not in ")]}#":
            indent = depth
    return Around(tuple(names), indent, number + 1)


def _opens(line: str, quote: str, above: str) -> bool:
    """Whether a triple quote opens a string that goes on below: a docstring right under its definition, text behind the
    quotes and none before them, or an operator or bracket before them."""
    before, _, after = line.rpartition(quote)
    before = before.strip().strip("rRbBfFuU")
    return (not before and (bool(after.strip()) or above.rstrip().endswith(":"))) or before.endswith(("=", "(", ","))


class Outline:
    """The definitions of a whole text; raises SyntaxError where it cannot be parsed."""

    def __init__(self, text: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(text)
            except (ValueError, RecursionError, MemoryError) as error:
                raise SyntaxError(str(error)) from error
        self._lines = text.split("\n")
        self._spans: list[tuple[int, int, int, Symbol]] = []
        stack: list[tuple[ast.AST, str]] = [(tree, "")]
        while stack:
            node, prefix = stack.pop()
            for child in ast.iter_child_nodes(node):
                name = prefix
                if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    name = f"{prefix}.{child.name}" if prefix else child.name
                    kind: Kind = "class" if isinstance(child, ast.ClassDef) else "function"
                    start = min([child.lineno, *(item.lineno for item in child.decorator_list)])
                    self._spans.append((start, child.end_lineno or start, child.col_offset, Symbol(name, kind)))
                stack.append((child, name))

    def at(self, line: int, indent: int) -> Symbol:
        """The innermost definition that holds something indented by ``indent`` at or right below a line.

        Right below a definition's end still counts where the indentation does: new lines at the end of a function.
        """
        while line > 1 and line <= len(self._lines) and not self._lines[line - 1].strip():
            line -= 1
        best = Symbol("", "module")
        width = _FAR * 10
        for start, end, column, symbol in self._spans:
            if start <= line <= end and column < indent and end - start < width:
                best, width = symbol, end - start
        return best
