"""Finds bugs that show: a call of the function gives something else with the bug than without it.

Each state of a function is really called, in a process of its own. A function keeps two to four bugs that
are in its file at the same time, and every one of them must show and go away by itself: there is a call that is wrong
with all of them and right again once this one alone is mended.
"""

from __future__ import annotations

import ast
import random
from collections import Counter
from dataclasses import dataclass, field

from data_prep.common.funnel import Stage
from data_prep.forge.mutate import Function, Mutation
from data_prep.forge.probe import Call, Outcome, Probe
from data_prep.forge.sandbox import Sandbox

# A function is given up when none of its first mutations shows: its calls then miss what it does.
MUTATIONS_TRIED, FRUITLESS = 28, 8
MOST_BUGS, FEWEST_BUGS = 4, 2
MOST_BATCHES = 4
FEWEST_MUTATIONS = 4
_TRIES, _CALLS = 480, 80
_CHECKS = 5


@dataclass(frozen=True)
class Check:
    """A call, what it should give, and what it gives with the bug."""

    call: Call
    expected: Outcome
    actual: Outcome


@dataclass(frozen=True)
class Bug:
    """A mutation that shows."""

    function: Function
    mutation: Mutation
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Batch:
    """Bugs of one function that are there together, and calls that none of them changes."""

    function: Function
    bugs: tuple[Bug, ...]
    controls: tuple[tuple[Call, Outcome], ...]


@dataclass
class Screened:
    """What one function gave."""

    batches: list[Batch] = field(default_factory=list)
    functions: Stage = field(default_factory=lambda: Stage(name="functions", unit="functions"))
    mutations: Stage = field(default_factory=lambda: Stage(name="mutations", unit="mutations"))


def screen(sandbox: Sandbox, function: Function, mutations: list[Mutation], text: str, seed: str) -> Screened:
    """The bugs of one function; the working folder holds the library without any."""
    result = Screened()
    if len(mutations) < FEWEST_MUTATIONS:
        result.functions.drop("too little in it to mutate")
        return result
    with Probe(sandbox, function, text) as probe:
        calls, reference = _calls(probe, seed)
        if len(calls) < 3:
            result.functions.drop("fewer than three calls with a repeatable outcome", {"function": function.qualname})
            return result
        draw = random.Random(f"{seed}/mutations")
        shown: list[tuple[Mutation, set[int]]] = []
        for tried, mutation in enumerate(_varied(mutations, draw)[:MUTATIONS_TRIED]):
            if tried == FRUITLESS and not shown:
                break
            reason, differing = _differences(probe, mutation, calls, reference)
            if reason:
                result.mutations.drop(reason, {"function": function.qualname, "old": mutation.old, "new": mutation.new})
            else:
                shown.append((mutation, differing))
        # Bugs that few calls show first: one that shows in every call hides all others.
        shown.sort(key=lambda item: len(item[1]))
        while len(result.batches) < MOST_BATCHES:
            group = _group(shown, draw.randint(3, MOST_BUGS))
            if len(group) < FEWEST_BUGS:
                break
            shown = [item for item in shown if item[0] not in group]
            batch = _batch(probe, group, calls, reference, result.mutations)
            if batch is not None:
                result.mutations.keep(len(batch.bugs))
                result.batches.append(batch)
    if shown:
        result.mutations.drop("not needed, or no second bug of the function beside it", count=len(shown))
    if result.batches:
        result.functions.keep()
    else:
        result.functions.drop("fewer than two bugs that show", {"function": function.qualname})
    return result


def _calls(probe: Probe, seed: str) -> tuple[list[Call], list[Outcome]]:
    """Invented calls whose outcome is the same in another process."""
    invented = probe.invent(seed, _TRIES, _CALLS)
    again = probe.observe([call for call, _ in invented], []) or []
    same = [(call, now) for (call, before), now in zip(invented, again, strict=False) if now.usable and now == before]
    return [call for call, _ in same], [outcome for _, outcome in same]


def _varied(mutations: list[Mutation], draw: random.Random) -> list[Mutation]:
    """In random order, but one of each kind before a second one of any."""
    shuffled = draw.sample(mutations, len(mutations))
    rank: Counter[str] = Counter()
    ranked = []
    for mutation in shuffled:
        ranked.append((rank[mutation.kind], mutation))
        rank[mutation.kind] += 1
    return [mutation for _, mutation in sorted(ranked, key=lambda pair: pair[0])]


def _differences(probe: Probe, mutation: Mutation, calls: list[Call], reference: list[Outcome]) -> tuple[str, set[int]]:
    """A reason to drop the mutation, or the calls that give something else with it."""
    try:
        ast.parse(probe.source([mutation]))
    except (SyntaxError, ValueError):
        return "does not compile", set()
    observed = probe.observe(calls, [mutation])
    if observed is None:
        return "ended by a limit, or crashed", set()
    differing = {i for i, (a, b) in enumerate(zip(observed, reference, strict=True)) if a != b and a.usable}
    if differing:
        return "", differing
    bad = next((outcome.text for outcome in observed if not outcome.usable), "")
    return f"only {bad} outcomes" if bad else "no call changes", set()


def _group(shown: list[tuple[Mutation, set[int]]], size: int) -> list[Mutation]:
    """Up to ``size`` mutations on separate lines, each with a call that none of the others changes."""
    group: list[tuple[Mutation, set[int]]] = []
    for item in shown:
        if len(group) == size:
            break
        if any(item[0].near(other) for other, _ in group):
            continue
        wider = [*group, item]
        if all(own - set().union(*(c for m, c in wider if m is not mutation)) for mutation, own in wider):
            group = wider
    return [mutation for mutation, _ in group]


def _batch(
    probe: Probe, group: list[Mutation], calls: list[Call], reference: list[Outcome], stage: Stage
) -> Batch | None:
    """Bugs of the group that show and go away one by one; those that do not leave the group and it is tried again."""
    while len(group) >= FEWEST_BUGS:
        together = probe.observe(calls, group)
        if together is None:
            stage.drop("ended by a limit, or crashed", count=len(group))
            return None
        bugs, hidden = [], []
        for mutation in group:
            mended = probe.observe(calls, [other for other in group if other != mutation]) or []
            showing = [
                Check(call, right, wrong)
                for call, right, wrong, now in zip(calls, reference, together, mended, strict=False)
                if now == right and wrong != right and wrong.usable
            ]
            showing.sort(key=_plainness)
            if showing:
                bugs.append(Bug(probe.function, mutation, tuple(showing[:_CHECKS])))
            else:
                hidden.append(mutation)
        if not hidden:
            controls = [(c, r) for c, r, now in zip(calls, reference, together, strict=True) if now == r]
            return Batch(probe.function, tuple(bugs), tuple(controls[:_CHECKS]))
        stage.drop("hidden by another bug of the function", count=len(hidden))
        group = [mutation for mutation in group if mutation not in hidden]
    if group:
        stage.drop("not needed, or no second bug of the function beside it", count=len(group))
    return None


def _plainness(check: Check) -> tuple[bool, int]:
    """Values before errors, short before long: what a person would report."""
    error = "error" in (check.expected.kind, check.actual.kind)
    return error, len(check.call.text) + len(check.expected.text) + len(check.actual.text)
