"""Counterfactual evidence: a run, and the same run with two observed values exchanged wherever they show.

Both contexts hold the same words as often, so only what a value stands for tells which of them supports an answer: a
value from elsewhere would be found by looking for its word. Two values of one kind and form are exchanged if each is
understood wherever it stands: it is a fact of that kind in what commands printed, or the agent's words, but no part of
a command, and both show equally often. The exchange is verified by reading the facts of the altered run.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from contextrl_verl.pairs import Context, ContrastivePair, Message
from contextrl_verl.pairs.redact import redact_messages
from data_prep.common.funnel import Funnel, Stage
from data_prep.trajectories.actions import actions_of
from data_prep.trajectories.facts import KINDS, Fact, facts_of, standing
from data_prep.trajectories.run import AgentRun

QUERY = (
    "A coding agent worked on an issue of {repository}. The contexts are two records of this work that differ in what "
    "a command printed. {question}"
)
# Shortens, shows and cuts a run's messages so that the given lines stay; None when they do not fit.
Fit = Callable[[AgentRun, Sequence[Message], frozenset[str]], Sequence[Message] | None]
_UNSAID = {kind.name: kind.unsaid for kind in KINDS if kind.unsaid}
_WORD = re.compile(r"\w+")


class Exchange(NamedTuple):
    """Two values to be exchanged, and what is asked about one of them."""

    kind: str
    values: tuple[str, str]
    question: str
    command: str
    answer: str

    @property
    def other(self) -> str:
        """The answer in the altered run."""
        return self.values[self.values[0] == self.answer]

    def of(self, text: str) -> str:
        """The text with the two values exchanged."""
        one, other = self.values
        return standing(self.kind, *self.values).sub(lambda found: other if found[0] == one else one, text)


def pairs_of_run(run: AgentRun, fit: Fit, *, split: str, most: int, seed: int, funnel: Funnel) -> list[ContrastivePair]:
    """Both directions of at most ``most`` exchanges in a run; secrets are redacted.

    The stages ``counterfactual values`` and ``counterfactual`` count what is left out.
    """
    values, stage = funnel.stage("counterfactual values", "values"), funnel.stage("counterfactual", "exchanges")
    chance, told = random.Random(f"{seed}/{run.run_id}"), {"run": run.run_id}
    pairs: list[ContrastivePair] = []
    try:
        shown = run.model_copy(update={"messages": tuple(redact_messages(run.messages))})
        facts = facts_of(shown)
        exchanges = list(_exchanges(shown, facts, chance, values))
    except Exception as error:
        values.fail(error, told)
        return pairs
    for exchange in exchanges:
        if len(pairs) == 2 * most:
            stage.drop("more than are taken of one run")
            continue
        try:
            found = _contexts(shown, facts, exchange, fit)
        except Exception as error:
            stage.fail(error, told)
            continue
        if isinstance(found, str):
            stage.drop(found, {**told, "values": exchange.values})
        else:
            stage.keep()
            pairs += _directions(run, exchange, found, f"{run.run_id}~{len(pairs) // 2}", split, chance)
    return pairs


def _exchanges(run: AgentRun, facts: Sequence[Fact], chance: random.Random, stage: Stage) -> Iterator[Exchange]:
    """Exchanges that have no value in common, one of each kind before a second one of any."""
    asked: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        asked[fact.kind, fact.value] += [fact] if fact.question else []
    # A file that a command names, in what that command printed.
    named = {word for fact in facts for word in _WORD.findall(fact.command) if len(word) > 2}
    couples: list[tuple[int, Exchange]] = []
    rank: Counter[str] = Counter()
    for kind, one, other in _couples(run, facts, chance, stage):
        about = [*asked[kind, one], *asked[kind, other]]
        if named & (set(_WORD.findall(one)) ^ set(_WORD.findall(other))):
            stage.drop("stands in a command", count=2)
        elif not about:
            stage.drop("no question has it as the only answer", count=2)
        else:
            stage.keep(2)
            fact = chance.choice(about)
            couples.append((rank[kind], Exchange(kind, (one, other), fact.question, fact.command, fact.value)))
            rank[kind] += 1
    chance.shuffle(couples)
    yield from (exchange for _, exchange in sorted(couples, key=lambda couple: couple[0]))


def _couples(
    run: AgentRun, facts: Sequence[Fact], chance: random.Random, stage: Stage
) -> Iterator[tuple[str, str, str]]:
    """Kind and values that can change places without a trace: of one make, and either in the same messages as often, or
    as long and in all as often. So no message becomes longer, and neither value tells where it belongs."""
    scripts = "\n".join(text for action in actions_of(run) for text in (action.script, *action.arguments.values()))
    spoken = {index: turn.content for index, turn in enumerate(run.messages) if turn.role == "assistant"}
    words = "\n".join(spoken.values())
    rest = "\0".join(message.content for message in run.messages if message.role != "assistant")
    stated: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for fact in facts:
        stated[fact.kind, fact.value][fact.reply] += 1
    alike: dict[tuple, list[str]] = defaultdict(list)
    where: dict[tuple[str, str], Counter[int]] = {}
    for (kind, value), replies in stated.items():
        found = standing(kind, value)
        if not _WORD.search(value) or "<" in value:
            stage.drop("no word")
        elif kind in _UNSAID and _UNSAID[kind].search(words):
            stage.drop("the agent speaks of such values")
        elif len(found.findall(rest)) != replies.total():
            stage.drop("shows where it is not understood")
        elif found.search(scripts):
            stage.drop("stands in a command")
        else:
            said = spoken if found.search(words) else {}
            replies.update({index: len(found.findall(text)) for index, text in said.items()})
            where[kind, value] = +replies
            make = re.sub(r"[A-Za-z]+", "a", re.sub(r"\d+", "0", value))
            alike[kind, make].append(value)
    for (kind, _), values in alike.items():
        chance.shuffle(values)
        places: tuple[Callable[[str], Any], ...] = (
            lambda value, kind=kind: tuple(sorted(where[kind, value].items())),
            lambda value, kind=kind: (len(value), where[kind, value].total()),
        )
        for place in places:
            groups: dict[Any, list[str]] = defaultdict(list)
            for value in values:
                groups[place(value)].append(value)
            values = [group[-1] for group in groups.values() if len(group) % 2]
            for group in groups.values():
                yield from ((kind, *couple) for couple in zip(group[::2], group[1::2], strict=False))
        if values:
            stage.drop("no second value of its kind, make and place", count=len(values))


def _contexts(
    run: AgentRun, facts: Sequence[Fact], exchange: Exchange, fit: Fit
) -> tuple[list[Message], list[Message]] | str:
    """The run as it was, and altered; or why that is no exchange."""
    altered = facts_of(run.model_copy(update={"messages": tuple(_altered(run.messages, exchange))}))
    swapped = dict(zip(exchange.values, exchange.values[::-1], strict=True))
    values = (swapped.get(fact.value, fact.value) if fact.kind == exchange.kind else fact.value for fact in facts)
    if altered != [fact._replace(value=value) for fact, value in zip(facts, values, strict=True)]:
        return "the altered run reads differently in more than the two values"
    places = standing(exchange.kind, *exchange.values)
    lines = {line for message in run.messages for line in message.content.split("\n") if places.search(line)}
    fitted = fit(run, run.messages, frozenset(lines | {exchange.command}))
    if fitted is None:
        return "the values do not fit the token budget"
    for what, shows in (("value", places), ("command", re.compile(re.escape(exchange.command)))):
        # A system prompt or the harness's text may name a command too. A mark of what was cut may hold such a number.
        now, before = (
            sum(len(shows.findall(turn.content)) for turn in turns if what == "value" or turn.role == "assistant")
            for turns in (fitted, run.messages)
        )
        if now != before:
            return f"a {what} shows less often, or in a mark, once the run is cut"
    return list(fitted), _altered(fitted, exchange)


def _altered(messages: Sequence[Message], exchange: Exchange) -> list[Message]:
    return [Message(role=message.role, content=exchange.of(message.content)) for message in messages]


def _directions(
    run: AgentRun, exchange: Exchange, contexts: Sequence[list[Message]], name: str, split: str, chance: random.Random
) -> Iterator[ContrastivePair]:
    """One pair for each answer, in random order."""
    made = [Context(kind="messages", messages=messages) for messages in contexts]
    told = [{"run_id": run.run_id}, {"run_id": run.run_id, "altered": exchange.kind}]
    for index, own in enumerate(chance.sample((0, 1), 2)):
        yield ContrastivePair(
            pair_id=f"{name}{'ab'[index]}",
            domain="trajectory",
            query=QUERY.format(repository=run.repository, question=exchange.question),
            answer=(exchange.answer, exchange.other)[own],
            supporting=made[own],
            confounders=[made[1 - own]],
            provenance={
                "kind": "counterfactual",
                "what": exchange.kind,
                "supporting": told[own],
                "confounders": [told[1 - own]],
                "shared": [],
                "run": run.run_id,
                "couple": name,
            },
            split=split,
        )
