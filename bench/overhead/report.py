"""The figures as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.overhead.sizes import ARMS
from contextrl_verl.errors import ConfigError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_NAMES = {
    "step": "**whole step**",
    "training": "training (the four below)",
    "gen": "waiting for samples (`gen`)",
    "old_log_prob": "`old_log_prob`",
    "ref": "`ref`",
    "adv": "`adv`",
    "update_actor": "`update_actor`",
    "update_weights": "`update_weights`",
    "other": "the rest",
}
_ORDER = ("step", "gen", "training", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "other")


def verdict(found: dict[str, Any]) -> str:
    """One line: the ratio, its interval, and how it stands to the promise."""
    ratio, limit = found["stages"]["step"]["ratio"], found["limit"]
    if ratio["high"] <= limit:
        stands = f"within the promised {limit}"
    elif ratio["value"] <= limit:
        stands = f"within the promised {limit}, but its interval is not: more steps or a quieter machine would tell"
    else:
        stands = f"ABOVE the promised {limit}"
    return f"step time with pairs / without: {_ratio(ratio)}, {stands}"


def markdown(found: dict[str, Any]) -> str:
    """The whole report; pure function of :func:`bench.overhead.results.summarise`'s result."""
    return "\n\n".join([verdict(found) + ".", _setting(found), _stages(found), _tokens(found), _memory(found)]) + "\n"


def released_markdown(one: dict[str, Any]) -> str:
    """The released schedules next to carrier rows, from :func:`bench.overhead.released.figures`."""
    head = "| per step, all GPUs | pairs | updates of a pair | forwarded per pair | backwarded per pair | work |"
    rows = [
        f"| {line['name']} | {line['pairs']} | {line['uses']} | {line['forward_per_pair']:,} | "
        f"{line['backward_per_pair']:,} | {line['work'] / 1e6:.2f} M |"
        for line in one["lines"]
    ]
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + "\n"


def write_into(document: Path, text: str, begin_mark: str = BEGIN, end_mark: str = END) -> str:
    """The document with ``text`` between two marks.

    Raises:
        ConfigError: the marks are not there.
    """
    whole = document.read_text()
    before, begin, rest = whole.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ConfigError(
            f"{document} has no lines {begin_mark!r} and {end_mark!r} in this order. Fix: put them where it goes."
        )
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def _setting(found: dict[str, Any]) -> str:
    sizes, machine = found["sizes"], found["machine"]
    steps = len(found["seconds"][ARMS[0]]["step"])
    return (
        f"{sizes['rows']} ordinary rows x {sizes['rollouts']} samples, {sizes['prompt']} + {sizes['response']} tokens "
        f"each; {sizes['pairs']} pairs ({sizes['share']:.1%} of the items) of {sizes['pair_prompt']} + 1 tokens, "
        f"{found['filler_rows']} filler rows with them. Qwen2 of width {sizes['hidden']} and {sizes['layers']} layers, "
        f"fp32; KL loss on. {steps} steps of each job in turns after {found['left_out_steps']} left out; "
        f"{machine['cores']} cores, load {machine['load'][0]:.1f} before and {machine['load'][1]:.1f} after. "
        f"Versions: {', '.join(f'{name} {value}' for name, value in found['versions'].items())}. "
        f"Made by `{found['made_by']}`."
    )


def _stages(found: dict[str, Any]) -> str:
    lines = ["| median seconds of a step | without pairs | with pairs | ratio (95 % interval) |", "|---|---|---|---|"]
    for stage in _ORDER:
        one = found["stages"][stage]
        ratio = _ratio(one["ratio"]) if one["ratio"] else "-"
        lines.append(f"| {_NAMES[stage]} | {one[ARMS[0]]:.3f} | {one[ARMS[1]]:.3f} | {ratio} |")
    return "\n".join(lines)


def _tokens(found: dict[str, Any]) -> str:
    base = found["tokens"]["ordinary rows"]
    lines = [
        "| tokens of a step | sampled | forwarded | backwarded | share of the rows' work |",
        "|---|---|---|---|---|",
    ]
    for name in ("ordinary rows", "pairs", "filler"):
        one = found["tokens"][name]
        lines.append(
            f"| {name} | {one['sampled']:,} | {one['forward']:,} | {one['backward']:,} | "
            f"{one['work'] / base['work']:.1%} |"
        )
    pairs, sizes = found["tokens"]["pairs"], found["sizes"]
    return (
        "\n".join(lines) + f"\n\nPer pair: 0 sampled, {pairs['forward'] // sizes['pairs']:,} forwarded, "
        f"{pairs['backward'] // sizes['pairs']:,} backwarded. The rows' tokens agree with what verl counted in every "
        f"step ({found['row_tokens'][ARMS[0]]:,} and {found['row_tokens'][ARMS[1]]:,})."
    )


def _memory(found: dict[str, Any]) -> str:
    lines = ["| peak resident memory | without pairs | with pairs |", "|---|---|---|"]
    for key, name in (("job_gib", "all processes of the job"), ("worker_gib", "the training worker")):
        values = [found["memory"][arm][key] for arm in ARMS]
        lines.append(f"| {name} | {values[0]:.2f} GiB | {values[1]:.2f} GiB |")
    return "\n".join(lines)


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
