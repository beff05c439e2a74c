r"""Which label a response commits to, told sentence by sentence.

Labels become single characters of the private use area first; behind a noun ("Option B") or in a mark of a final answer
(``\boxed{B}``) they get another in front. A sentence then commits to a label, denies one, or leaves the matter open.
Every repetition is bounded and long sentences are cut, so the time is linear in the length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from reward_fns import commitment_phrases as say
from reward_fns.final_answer import find_markers, find_marks, fold

_FIRST = 0xE100
_PRIVATE = re.compile("[\ue000-\uf8ff]")
# What follows the void, as what does not: a third faster to find.
_CODES = re.compile("[^\0-\ue002\uf900-\U0010ffff]")
_WIDE = re.compile("[！-～【】]")
_NARROW = {0xFF01 + n: 0x21 + n for n in range(94)} | dict(zip(map(ord, "【】"), "()", strict=True))
_LATEX = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|bf|rm)\s?\{([^{}]{0,80})\}")
_LATEX_MARKS = re.compile(r"\\[()\[\],;! ]|\$")
_BOLD = re.compile("[*]{1,3}([\ue100-\uf8ff])[*]{1,3}")
_FENCE = re.compile(r"```\w{0,10}")
# A label may stand in the line below what announces it.
_CONTINUED = re.compile(r"([:：]|\b(?:answer|choice))[*_ ]{0,4}\n\s{0,9}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?。！？\n](?:(?<=[\n。！？])|[\"”’)\]_`]{0,4}(?:\s|\Z))\s{0,20}")
_SENTENCE_ENDS = ("\n", ". ", "? ", "! ", "。")
_SENTENCE_CHARS = 400
_SENTENCES = 1000
_BARE_CHARS = 80
_CUE_CHARS = 120
_GAP_CHARS = 300
_DEPTH = 2


class _Labels:
    """The characters that stand for a set of labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.codes = {key_of(label): chr(_FIRST + number) for number, label in enumerate(labels)}
        self.names = {chr(_FIRST + number): label for number, label in enumerate(labels)}
        self.narrow = all(map(str.isascii, labels))
        self.letters = all(len(label) == 1 and "A" <= label <= "Z" for label in labels)
        # Behind the label, so that the search for it begins with the label itself.
        before = r"(?<!{0}{1})(?<!\d\.{1})(?<!\w[-'’]{1})"
        alternatives = [
            (f"(?i:{re.escape(label)})" if len(label) > 1 else re.escape(label))
            # The pronoun is no label.
            + (r"(?!\s(?!is\b)[a-z]|['’])" if label == "I" else "")
            + before.format(say.LETTER, f".{{{len(label)}}}")
            for label in sorted(labels, key=len, reverse=True)
        ]
        label = f"(?:{'|'.join(alternatives)})(?!{say.LETTER})(?![-'’]\\w|\\.\\d|\\+)"
        self.pattern = re.compile(label, re.DOTALL)
        self.bare = re.compile(
            rf"{say.AROUND}(?i:{say.NOUNS})?{say.AROUND}({label}){say.AROUND}[.!。]?{say.AROUND}", re.DOTALL
        )

    def code(self, match: re.Match[str]) -> str:
        # What only regular expressions take for the same, such as a dotless i, stays as it is.
        return self.codes.get(key_of(match[0]), match[0])


_labels = lru_cache(maxsize=256)(_Labels)


def key_of(label: str) -> str:
    """What tells labels apart: their letters in any case, but one character as it is."""
    return label if len(label) == 1 else label.casefold()


def committed_to(text: str, labels: tuple[str, ...], depth: int = 0) -> str | None:
    """The one of ``labels`` that a text without its thinking commits to, as written there, or None."""
    alphabet = _labels(labels)
    if len(text) <= _BARE_CHARS and (bare := alphabet.bare.fullmatch(text)):
        return alphabet.names.get(alphabet.codes.get(key_of(bare[1])))
    encoded, found = _encode(text, labels, alphabet, depth)
    if not found and alphabet.letters:
        lower = say.LOWER.sub(lambda match: match[0].upper(), text)
        encoded, found = _encode(lower, labels, alphabet, depth) if lower != text else ("", 0)
    return alphabet.names.get(_read(encoded, alphabet)) if found else None


def _encode(text: str, labels: tuple[str, ...], alphabet: _Labels, depth: int) -> tuple[str, int]:
    """The text with characters for labels, and how many there are."""
    if not text.isascii():
        text = _PRIVATE.sub("?", text)
        if alphabet.narrow and _WIDE.search(text):
            text = text.translate(_NARROW)
    pieces, at = [], 0
    for start, stop, content in find_marks(text):
        label = committed_to(content.strip(), labels, depth + 1) if content and depth < _DEPTH else None
        # What an object holds besides its answer is a clause of its own.
        pieces += [
            text[at:start],
            ";" if text[start] in "{," else "",
            say.VOID if label is None else say.MARK + alphabet.codes[key_of(label)],
        ]
        at = stop
    if pieces:
        text = "".join([*pieces, text[at:]])
    if "\\" in text or "$" in text:
        text = _LATEX_MARKS.sub("", _LATEX.sub(r"\1", text))
    if "```" in text:
        text = _FENCE.sub("", text)
    if "\n" in text:
        text = _CONTINUED.sub(lambda found: f"{found[1]} ", text)
    named = 0
    if not alphabet.letters or any(map(text.__contains__, labels)):
        text, named = alphabet.pattern.subn(alphabet.code, text)
    if "*" in text:
        text = _BOLD.sub(lambda found: f"({found[1]})", text).replace("*", "")
    return text, named + bool(pieces)


class _Verdict:
    """What has been said so far."""

    def __init__(self) -> None:
        self.affirmed: set[str] = set()
        self.denied: set[str] = set()
        # Labels that begin a line or a sentence, as an answer does, and an item of a list.
        self.naked: set[str] = set()
        self.listed: set[str] = set()
        self.decided = False
        # What the sentence of the last commitment goes on to say.
        self.rest = ""

    def commit(self, into: set[str], labels: str, gap: str) -> None:
        before = (self.affirmed, self.denied, self.naked)
        if any(before) and say.CORRECTS.search(fold(gap)):
            for said in before:
                said.clear()
        into.update(labels)
        self.decided = True

    def label(self) -> str:
        naked = self.naked if len(self.naked | self.listed) < 2 else set()
        said = self.affirmed | naked
        return said.pop() if self.decided and len(said) == 1 and not said & self.denied else ""


class _Sentence(NamedTuple):
    """A sentence that names a label; ``gap`` is what stands between it and the last commitment."""

    text: str
    gap: str
    first: bool
    begins_line: bool
    ends_line: bool
    in_last_line: bool


def _read(text: str, alphabet: _Labels) -> str:
    verdict, last_line = _Verdict(), text.rfind("\n")
    until = told = told_until = sentences = 0
    while code := _CODES.search(text, until):
        # Nobody weighs the options so often; hostile text may not cost minutes.
        if (sentences := sentences + 1) > _SENTENCES:
            return ""
        at = code.start()
        start = max(until, at - _SENTENCE_CHARS)
        for ending in _SENTENCE_ENDS:
            if (before := text.rfind(ending, start, at)) >= 0:
                start = before + len(ending)
        end = _SENTENCE_END.search(text, at)
        until = min(end.end() if end else len(text), at + _SENTENCE_CHARS)
        said, gap = text[start:until].strip(), verdict.rest + text[max(told_until, start - _GAP_CHARS) : start]
        if plain := say.PLAIN.fullmatch(fold(said)):
            verdict.commit(verdict.affirmed, plain[1], gap)
            verdict.rest, told, told_until = "", until, until
            continue
        line = text.rfind("\n", max(0, start - _SENTENCE_CHARS), start) + 1 or max(0, start - _SENTENCE_CHARS)
        sentence = _Sentence(
            said,
            gap,
            first=start == 0,
            begins_line=not text[line:start].strip(" 1.>#•-"),
            ends_line=not end or until == len(text) or "\n" in text[end.start() : until],
            in_last_line=start > last_line,
        )
        if _read_sentence(verdict, sentence, alphabet):
            told, told_until = start, until
    after = text[told:]
    return "" if verdict.decided and after and say.UNDECIDED.search(fold(after)) else verdict.label()


def _read_sentence(verdict: _Verdict, sentence: _Sentence, alphabet: _Labels) -> bool:
    """Add what ``sentence`` says to ``verdict``; return whether it commits."""
    said = written = fold(sentence.text)
    # A function is cheaper than a template, even where nothing matches.
    said = say.PARTED.sub(lambda found: f"{found[1]} -- ", said) if ")" in said or "]" in said else said
    said = say.NOUN_BEFORE.sub(lambda found: say.NOUN + (found[1] or ""), said)
    if any(map(said.__contains__, "()[]{}<_\"'`“‘")):
        said = say.WRAPPED.sub(lambda found: found[1] or "", said)
    said = " ".join(said.split())
    if any(map(said.__contains__, "\"'`“‘")):
        # A sentence that is one quotation is the response's own.
        unquoted = " ".join(say.QUOTED.sub(" ", said).split())
        said = unquoted if unquoted.strip(".") else said
    if said.endswith("?"):
        return False
    events = _statements(said)
    if any(map(said.__contains__, say.DOUBT_LITERALS)):
        events += [
            (match.start(), match.end(), "denied", match[match.lastindex]) for match in say.DENIES.finditer(said)
        ]
        events += [
            (match.start(), match.end(), "open", "")
            for match in say.HEDGES.finditer(said)
            if not say.DENIED.search(said, max(0, match.start() - 40), match.start())
        ]
    at, gap, committed = 0, sentence.gap, False
    naked = say.NAKED.match(said)
    if naked and not any(begin < naked.end() and kind for begin, _, kind, _ in events):
        listed = len(set(say.ITEM.findall(written))) > 1
        committed, at = _read_naked(verdict, sentence, said, naked, listed, alphabet), naked.end()
        gap = "" if committed else gap
    for begin, end, kind, label in sorted(events):
        if kind == "affirmed":
            other = say.NEXT_LABEL.match(said, end)
            verdict.commit(verdict.affirmed, label + (other[1] if other else ""), gap + said[at:begin])
            gap, committed, verdict.rest = "", True, said[end:]
        elif kind == "denied":
            verdict.denied.add(label)
        elif kind == "open":
            verdict.decided = False
        at = end
    return committed


def _statements(said: str) -> list[tuple[int, int, str, str]]:
    """``(start, end, "affirmed" | "denied" | "open" | "", label)`` of everything that announces a label."""
    events: list[tuple[int, int, str, str]] = []
    slots = {}
    for begin, end in find_markers(said):
        if (slot := say.SLOT.match(said, end)) and (slot[0][-2:-1] == say.NOUN or say.FOLLOW.match(said, slot.end())):
            slots[slot.end()] = begin
    cued = any(map(said.__contains__, say.BEHIND_LITERALS))
    short = say.SHORT.match(said)
    for match in say.ANY.finditer(said):
        begin, end = match.span()
        if said[begin - 1 : begin] == say.MARK:
            begin -= 1
        elif end in slots:
            begin = slots[end]
        elif behind := say.BEHIND.match(said, end):
            if say.NEGATED.match(said, behind.end()) or say.ANOTHER_BEFORE.search(said, max(0, begin - 12), begin):
                continue
            if say.CONDITION.match(said, behind.end()):
                events.append((begin, end, "open", match[1]))
                continue
        elif short and short.end() == end and say.FOLLOW.match(said, end):
            begin = 0
        elif (
            cued
            and say.FOLLOW.match(said, end)
            and (cue := say.BEHIND_CUES.search(said, max(0, begin - _CUE_CHARS), begin))
        ):
            begin = cue.start() + (said[cue.start()] in ",;.:")
        else:
            continue
        events.append((begin, end, _verdict_of(said, begin, match.start(), end), match[1]))
    return events


def _verdict_of(said: str, begin: int, label: int, end: int) -> str:
    """Whether the statement of ``begin:end`` is affirmed, denied, left open, or only told of (empty)."""
    before = said[:begin]
    clauses = say.CLAUSE_END.split(before)[-1], say.CLAUSE_END.split(said[:label])[-1]
    if say.NEGATED.match(said, end) or any(map(say.DENIED.search, clauses)):
        return "denied"
    if say.CONDITION.match(said, end):
        return "open"
    return "" if say.OPEN_CASE.search(say.TURN.split(before)[-1]) or say.SAID.search(before) else "affirmed"


def _read_naked(
    verdict: _Verdict, sentence: _Sentence, said: str, naked: re.Match[str], listed: bool, alphabet: _Labels
) -> bool:
    """Add what a sentence that begins with a label says: the answer, an item of a list, or neither."""
    label, rest, noun = naked[1], said[naked.end() :], said[naked.end() - 2 : naked.end() - 1] == say.NOUN
    into, why = None, say.NAKED_WHY.match(rest)
    if not rest.strip(" .!)]}`_\"'”’。"):
        if (sentence.begins_line and sentence.ends_line) or say.CORRECTS.search(fold(sentence.gap)):
            into = verdict.affirmed
        elif sentence.first:
            into = verdict.naked
    elif say.NEXT_LABEL.match(rest) or say.CONDITION.match(rest) or listed:
        return False
    elif (why or (sentence.first and rest[0] in ".:)")) and (
        sentence.first or (sentence.in_last_line and sentence.begins_line)
    ):
        adverb = rest[0] == "," and alphabet.names[label].casefold() in say.ADVERBS
        described = noun and rest.lstrip()[:1] in (":", "(")
        into = None if adverb or described else verdict.naked
    if into is not None:
        verdict.commit(into, label, sentence.gap)
        verdict.rest = rest
    elif not noun and (
        not rest.strip(" .!)") or rest[0] == ":" or (sentence.begins_line and (rest[0] in ".)" or rest[:2] == " -"))
    ):
        verdict.listed.add(label)
    return into is not None
