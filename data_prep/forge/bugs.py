"""Bugs of one function that show, and the issues that describe them.

The pairs need runs on the same repository, commit, file and function that mend different things. So a commit holds a
few bugs of one function at the same time. Each must show and go away by itself: there is a call that is wrong with all
of them and right again once this one alone is mended. An issue describes one bug, and its agent mends only that one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from contextrl_verl.agents.task import Call, Outcome
from data_prep.common.funnel import Funnel
from data_prep.forge.mutate import Function, Mutation, apply
from data_prep.forge.workplace import Workplace

FEWEST_MUTATIONS, MUTATIONS_TRIED = 4, 28
FEWEST_BUGS, MOST_BUGS, MOST_COMMITS = 2, 5, 4
FEWEST_CALLS, CALLS_KEPT = 3, 5
# A mutation that shows, and the places of the calls that show it.
_Shown = tuple[Mutation, set[int]]


class Check(NamedTuple):
    """A call, what it should give, and what it gives with the bug."""

    call: Call
    expected: Outcome
    actual: Outcome


class Fix(NamedTuple):
    """Lines ``first`` to ``first + len(removed) - 1`` of the commit's file become ``added``."""

    first: int
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def on(self, text: str) -> str:
        lines = text.split("\n")
        start, end = self.first - 1, self.first - 1 + len(self.removed)
        assert tuple(lines[start:end]) == self.removed
        return "\n".join([*lines[:start], *self.added, *lines[end:]])


class Issue(NamedTuple):
    """One bug of a commit."""

    function: Function  # what is wrong, with its lines in the commit's file
    kind: str  # of the mutation
    text: str  # of the commit's file
    fix: Fix
    checks: tuple[Check, ...]  # calls that show it
    controls: tuple[tuple[Call, Outcome], ...]  # calls that the commit's bugs do not change, with their outcomes


def screen(
    place: Workplace, function: Function, mutations: list[Mutation], text: str, seed: str
) -> tuple[list[list[Issue]], Funnel]:
    """The issues of each commit on one function; the working folder holds the library without bugs, ``text`` is the
    file's."""
    funnel = Funnel()
    functions, dropped = funnel.stage("functions", "functions"), funnel.stage("mutations", "mutations")
    named = {"function": function.qualname}
    if len(mutations) < FEWEST_MUTATIONS:
        functions.drop("too little in it to mutate")
        return [], funnel

    def observe(texts: Sequence[str]) -> list[list[Outcome] | None]:
        return place.observe(function.module, [({function.path: changed}, calls) for changed in texts])

    draw = random.Random(f"{seed}/mutations")
    tried = _varied(mutations, draw)[:MUTATIONS_TRIED]
    calls = place.invent(function.module, function.qualname, function.literals, seed)
    right, again, *changed = observe([text, text, *(apply(text, [mutation]) for mutation in tried)])
    # Calls whose outcome says something and is the same in another process.
    usable = [n for n, outcome in enumerate(right or []) if again and outcome == again[n] and outcome.usable]
    if right is None or len(usable) < FEWEST_CALLS:
        functions.drop("fewer than three calls with a repeatable outcome", named)
        return [], funnel
    shown: list[_Shown] = []
    for mutation, observed in zip(tried, changed, strict=True):
        differing = {n for n in usable if observed and observed[n].usable and observed[n] != right[n]}
        if differing:
            shown.append((mutation, differing))
        else:
            reason = "does not import, was ended by a limit, or crashed" if observed is None else "no call changes"
            dropped.drop(reason, {**named, "old": mutation.old, "new": mutation.new})
    # Bugs that few calls show first: one that shows in every call hides all others.
    shown.sort(key=lambda one: len(one[1]))
    commits: list[list[Issue]] = []
    while len(commits) < MOST_COMMITS and len(group := _group(shown, draw.randint(3, MOST_BUGS))) >= FEWEST_BUGS:
        shown = [one for one in shown if one not in group]
        buggy = apply(text, [mutation for mutation, _ in group])
        mended = [apply(text, [other for other, _ in group if other != one]) for one, _ in group]
        wrong, *now = observe([buggy, *mended])
        wrong = wrong or [Outcome("bad", "crash")] * len(calls)
        there = function._replace(last=function.last - text.count("\n") + buggy.count("\n"))
        controls = tuple((calls[n], right[n]) for n in usable if wrong[n] == right[n])[:CALLS_KEPT]
        issues = []
        for (mutation, _), fixed, outcomes in zip(group, mended, now, strict=True):
            places = [n for n in usable if outcomes and outcomes[n] == right[n] != wrong[n] and wrong[n].usable]
            checks = sorted((Check(calls[n], right[n], wrong[n]) for n in places), key=_plainness)
            fix = _difference(buggy, fixed)
            issues.append(Issue(there, mutation.kind, buggy, fix, tuple(checks[:CALLS_KEPT]), controls))
        if all(issue.checks for issue in issues):
            dropped.keep(len(issues))
            commits.append(issues)
        else:
            # The others may still do without those that stay hidden.
            visible = [one for one, issue in zip(group, issues, strict=True) if issue.checks]
            dropped.drop("hidden by another bug of the function", count=len(group) - len(visible))
            shown = visible + shown
    if shown:
        dropped.drop("not needed, or no second bug of the function beside it", count=len(shown))
    if commits:
        functions.keep()
    else:
        functions.drop("fewer than two bugs that show", named)
    return commits, funnel


def _varied(mutations: list[Mutation], draw: random.Random) -> list[Mutation]:
    """In random order, but one of each kind before a second one of any."""
    rank: Counter[str] = Counter()
    ranked = []
    for mutation in draw.sample(mutations, len(mutations)):
        ranked.append((rank[mutation.kind], mutation))
        rank[mutation.kind] += 1
    return [mutation for _, mutation in sorted(ranked, key=lambda pair: pair[0])]


def _group(shown: list[_Shown], size: int) -> list[_Shown]:
    """Up to ``size`` mutations on separate lines, each with a call that none of the others changes."""
    group: list[_Shown] = []
    for one in shown:
        wider = [*group, one]
        times = Counter(call for _, calls in wider for call in calls)
        alone = all(any(times[call] == 1 for call in calls) for _, calls in wider)
        if len(group) < size and alone and not any(one[0].near(other) for other, _ in group):
            group = wider
    return group


def _plainness(check: Check) -> tuple[bool, int]:
    """Values before errors, short before long: what a person would report."""
    error = "error" in (check.expected.kind, check.actual.kind)
    return error, len(check.call.text) + len(check.expected.text) + len(check.actual.text)


def same_ends(one: Sequence[Any], other: Sequence[Any]) -> tuple[int, int]:
    """How many items are the same at the start, and of the rest at the end."""
    start = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    rest = zip(one[start:][::-1], other[start:][::-1], strict=False)
    return start, len(list(takewhile(lambda pair: pair[0] == pair[1], rest)))


def _difference(before: str, after: str) -> Fix:
    """The smallest run of whole lines that turns ``before`` into ``after``."""
    a, b = before.split("\n"), after.split("\n")
    start, end = same_ends(a, b)
    return Fix(start + 1, tuple(a[start : len(a) - end]), tuple(b[start : len(b) - end]))
