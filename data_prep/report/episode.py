"""Records of an agent's episodes as people read them: every turn with its command, what came back, and how it ended."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from contextrl_verl.errors import ConfigError, told_by
from data_prep.report.page import Histogram, write_report

ENDING = ".json"
_HISTOGRAMS = ("turns", "seconds", "seconds_sandbox", "model_tokens", "observation_tokens")


@dataclass(frozen=True)
class Turn:
    """What the model said (``thought`` and, where it gave one, ``command``), and what it was told then.

    ``about`` and ``told`` are facts of either side: tokens, seconds, exit status.
    """

    thought: str
    command: str
    about: tuple[str, ...]
    output: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Episode:
    """A record; what it does not say is empty. ``resolved``: None where nobody verified it."""

    title: str
    resolved: bool | None
    ending: str
    reason: str
    opening: str
    turns: tuple[Turn, ...]
    patch: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return {True: "resolved", False: "not resolved", None: "no verdict"}[self.resolved]


def find_records(path: Path) -> list[Path]:
    """The file, or the files of a folder that may be records."""
    return [path] if path.is_file() else sorted(path.rglob(f"*{ENDING}"))


def read_episode(path: Path) -> Episode:
    """Read a record as mini-swe-agent writes it, with what our episodes add; raises ConfigError for any other file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _episode(record, path.name.removesuffix(ENDING).removesuffix(".traj"))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path}: this is no record of an episode ({type(error).__name__}: {told_by(error)}). Fix: name a file in "
            "mini-swe-agent's format (.traj.json), or a folder of them."
        ) from None


def _episode(record: dict[str, Any], name: str) -> Episode:
    info, ours = record.get("info") or {}, record.get("contextrl") or {}
    verdict, messages = ours.get("verdict") or {}, record["messages"]
    last = messages[-1] if messages and messages[-1]["role"] == "exit" else None
    opening, turns = [], []
    for message in messages[:-1] if last else messages:
        text, extra = message["content"], message.get("extra") or {}
        if message["role"] == "assistant":
            command = "\n".join(action["command"] for action in extra.get("actions") or ())
            thought = text.partition("```")[0] if command else text
            turns.append(Turn(thought.strip(), command, tuple(_told(extra))))
        elif turns:
            output = f"{turns[-1].output}\n{text}".lstrip("\n")
            turns[-1] = replace(turns[-1], output=output, told=(*turns[-1].told, *_told(extra)))
        else:
            opening.append(text)
    resolved = record.get("resolved")
    said = [verdict.get("reason"), verdict.get("detail")] if verdict else [ours.get("detail")]
    facts = {key: record[key] for key in ("repo", "trajectory_format") if key in record}
    return Episode(
        record.get("instance_id") or name,
        resolved if isinstance(resolved, bool) else None,
        ours.get("ending") or info.get("exit_status") or "",
        ": ".join(filter(None, said)),
        "\n\n".join(opening),
        tuple(turns),
        info.get("submission") or (last["content"] if last else ""),
        facts | {key: ours[key] for key in ("fault", "reward", "started") if key in ours} | (ours.get("metrics") or {}),
    )


def _told(extra: Mapping[str, Any]) -> Iterator[str]:
    if extra.get("returncode") is not None:
        yield f"exit status {extra['returncode']}"
    if extra.get("ended"):
        yield f"ended by its limit: {extra['ended']}"
    if extra.get("cut"):
        yield "cut at its limit of tokens"
    if extra.get("tokens") is not None:
        yield f"{extra['tokens']:,} tokens"
    if extra.get("seconds") is not None:
        yield f"{extra['seconds']:.2f} s"


def write_episodes(source: Path, out: Path, examples: int, seed: int) -> Path:
    """Write the page about a record or a folder of them, ``examples`` drawn at random, and return its path.

    Raises ConfigError if there is no record at all; of a folder, files that are none are counted.
    """
    files, broken = find_records(source), []
    if not files:
        raise ConfigError(f"{source} holds no file that ends in {ENDING}. Fix: name the folder of the records.")
    shown = set(Random(seed).sample(range(len(files)), min(examples, len(files))))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    numbers: dict[str, list[float]] = {name: [] for name in _HISTOGRAMS}
    kept: list[Episode] = []
    for number, file in enumerate(files):
        try:
            episode = read_episode(file)
        except ConfigError as error:
            if len(files) == 1:
                raise
            broken.append(str(error))
            continue
        counts["outcome"][episode.status] += 1
        counts["ending"][episode.ending or "not said"] += 1
        if episode.reason:
            counts["reason"][episode.reason.partition(":")[0]] += 1
        facts = {"turns": len(episode.turns), **episode.facts}
        for name in _HISTOGRAMS:
            if isinstance(facts.get(name), int | float):
                numbers[name].append(facts[name])
        if number in shown:
            kept.append(episode)
    if len(broken) == len(files):
        raise ConfigError(f"none of the {len(files)} files of {source} is a record; the first: {broken[0]}")
    notices = [f"{len(broken)} of {len(files)} files are no records. The first: {broken[0]}"] if broken else []
    read = len(files) - len(broken)
    return write_report(
        out,
        {"episodes": read, "resolved": counts["outcome"]["resolved"], "shown": len(kept), "seed": seed},
        None,
        kept,
        title=f"Episodes: {source.name}",
        block="episode.jinja",
        histograms=[Histogram(name.replace("_", " "), values) for name, values in numbers.items() if values],
        notices=notices,
        tables={name: dict(count.most_common(40)) for name, count in counts.items()},
    )
