"""Whether two formulas are equal, by math-verify and checks on what it lets pass. Runs in worker processes only.

Nothing here is bounded: reward_fns.bounded_pool kills what takes too long.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, _Latex2Sympy, normalize_latex
from latex2sympy2_extended.logic import And
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy import Eq, Expr, FiniteSet, Float, Integer, Intersection, Interval, Rational, Set, Symbol, Union, expand, oo
from sympy.core.relational import Relational

# It warns that its timeouts, which are signals, are off.
logging.getLogger("math_verify").setLevel(logging.ERROR)
# Its own repairs drop units and braces; reward_fns.formula has done that with more care.
_AS_WRITTEN = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=False, nits=True, boxed="none", equations=False
)
_NUMBER = re.compile(
    r"-?(?:(?P<digits>(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?)|(?P<top>\d+)/(?P<under>0*[1-9]\d*)|"
    r"\\frac\{(?P<up>\d+)\}\{(?P<down>0*[1-9]\d*)\})"
)


def first_equal(pairs: list[list[str]]) -> str:
    """``"equal"`` when a pair of reference and answer is, else ``"different"``, or ``"unread"`` if none can be read."""
    read = [(_parse(reference), _parse(answer)) for reference, answer in pairs]
    read = [(reference, answer) for reference, answer in read if reference is not None and answer is not None]
    if not read:
        return "unread"
    return "equal" if any(_are_equal(*pair) for pair in read) else "different"


@lru_cache(maxsize=4096)
def _parse(latex: str) -> Any:
    """The expression that all of ``latex`` is, or None."""
    if number := _NUMBER.fullmatch(latex):
        sign = "-" * latex.startswith("-")
        if digits := (number["digits"] or "").replace(",", ""):
            return (Float if "." in digits else Integer)(sign + digits)
        return Rational(sign + (number["top"] or number["up"]), number["under"] or number["down"])
    text = normalize_latex(latex, config=_AS_WRITTEN)
    # ANTLR's fast mode either reports an error or gives the same tree as its full one.
    for mode in (PredictionMode.SLL, PredictionMode.LL):
        converter = _Converter(is_real=not should_treat_as_complex(text))
        converter.mode = mode
        try:
            return converter.parse(text)
        except MemoryError:
            raise
        except Exception:
            continue
    return None


class _Converter(_Latex2Sympy):
    mode: int

    def create_parser(self, latex_str: str) -> Any:
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = self.mode
        return parser


def _are_equal(gold: Any, read: Any) -> bool:
    gold, read = _values(gold), _values(read)
    if isinstance(gold, Eq) and isinstance(read, Eq) and gold.lhs == read.lhs:
        gold, read = gold.rhs, read.rhs
    gold, read = _membership(gold), _membership(read)
    sets = [_as_set(side) if isinstance(other, Set) else None for side, other in ((gold, read), (read, gold))]
    gold, read = (side if as_set is None else as_set for side, as_set in zip((gold, read), sets, strict=True))
    # Both sides of the question are settled quickly for most answers, which math-verify would simplify first.
    if _differ(gold, read):
        return False
    if isinstance(gold, Expr) and isinstance(read, Expr) and gold.free_symbols and expand(gold - read) == 0:
        return True
    return verify(gold, read, timeout_seconds=None)


def _values(expression: Any) -> Any:
    """``x = 1 or x = 2`` as x = {1, 2}; anything else as it is."""
    if isinstance(expression, FiniteSet) and all(isinstance(part, Eq) for part in expression.args):
        names = {part.lhs for part in expression.args}
        if len(names) == 1 and isinstance(*names, Symbol):
            return Eq(*names, FiniteSet(*(part.rhs for part in expression.args)), evaluate=False)
    return expression


def _membership(expression: Any) -> Any:
    """Of ``x in S``, which is read as x = S, the set."""
    is_membership = isinstance(expression, Eq) and isinstance(expression.rhs, Set)
    return expression.rhs if is_membership and isinstance(expression.lhs, Symbol) else expression


def _as_set(expression: Any) -> Set | None:
    """The set of bounds on one symbol (``0 < x < 2``, ``x < 0 or x > 2``); None for other relations, unsolved ones."""
    is_several = isinstance(expression, And | FiniteSet)
    bounds = list(map(_bound, expression.args if is_several else (expression,)))
    if not bounds or None in bounds or len({symbol for symbol, _ in bounds}) != 1:
        return None
    return (Intersection if isinstance(expression, And) else Union)(*(values for _, values in bounds))


def _bound(relation: Any) -> tuple[Symbol, Set] | None:
    if isinstance(relation, Relational) and isinstance(relation.rhs, Symbol):
        relation = relation.reversed
    # Not as_set(), which solves what is solved already.
    if not (isinstance(relation, Relational) and isinstance(relation.lhs, Symbol) and relation.rhs.is_extended_real):
        return None
    end = relation.rhs
    sets = {
        ">": lambda: Interval.open(end, oo),
        ">=": lambda: Interval(end, oo),
        "<": lambda: Interval.open(-oo, end),
        "<=": lambda: Interval(-oo, end),
        "!=": lambda: Union(Interval.open(-oo, end), Interval.open(end, oo)),
    }
    return (relation.lhs, sets[relation.rel_op]()) if relation.rel_op in sets else None


def _differ(gold: Any, read: Any) -> bool:
    """Whether two expressions clearly differ, as numbers or, with symbols, at one point.

    More than rounding does: math-verify's bound is absolute, so that 1/2004! is 1/2006! to it.
    """
    if isinstance(read, Eq) and not isinstance(gold, Eq):
        read = read.rhs
    if not (isinstance(gold, Expr) and isinstance(read, Expr) and gold.free_symbols == read.free_symbols):
        return False
    symbols = sorted(gold.free_symbols, key=str)
    point = {symbol: Float("1.3717", 30) + Float("0.2391", 30) * place for place, symbol in enumerate(symbols)}
    one, other = (side.evalf(30, subs=point) for side in (gold, read))
    if not (one.is_number and other.is_number and one.is_finite and other.is_finite):
        return not symbols and one != other
    return not bool(abs(one - other) <= 1e-5 * max(abs(one), abs(other)))
