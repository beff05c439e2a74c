"""``contextrl difficulty``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def difficulty(
    pairs: Annotated[
        Path, typer.Argument(help="File of pairs (.parquet, .jsonl); with --episodes, of rows of repair tasks.")
    ],
    out: Annotated[Path | None, typer.Option(help="File for those that stay; not needed for --dry-run.")] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Model behind an OpenAI-compatible endpoint: model=M, base_url=URL, max_cost=5, ... (repeat; samples "
            "at temperature=1 unless told otherwise).",
        ),
    ] = None,
    episodes: Annotated[
        Path | None, typer.Option(help="Instead: folder of records of a job's episodes on these repair tasks.")
    ] = None,
    local: Annotated[str, typer.Option(help="Instead: model for vLLM on this machine (name or folder).")] = "",
    tries: Annotated[int, typer.Option(min=1, help="Tries at each pair, half of them in each order.")] = 8,
    keep: Annotated[tuple[int, int], typer.Option(help="Least and most solved of --tries, of what stays.")] = (2, 5),
    template: Annotated[str, typer.Option(help="Template of the question, as contextrl.prompt.template.")] = (
        "select_context"
    ),
    seed: Annotated[int, typer.Option(help="Of the orders and of local sampling.")] = 1,
    cache: Annotated[Path, typer.Option(help="Folder of replies of --local; a rerun costs nothing.")] = Path(
        "outputs/difficulty_cache"
    ),
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what --solver would cost; ask nothing.")] = False,
    allow_untried: Annotated[
        bool, typer.Option("--allow-untried", help="Write the rest even if some pairs could not be tried.")
    ] = False,
) -> None:
    """Keep the pairs, or repair tasks, that a model solves sometimes (the paper: 2 to 5 times of 8)."""
    from tqdm import tqdm

    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs.files import PairFile, write_pairs
    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.common.funnel import Funnel
    from data_prep.common.image_bytes import with_bytes
    from data_prep.difficulty.solve_rate import by_pair, decide, kept_pairs, tries_of, write_page
    from data_prep.models.spec import read_spec
    from data_prep.probe.endpoint_backend import EndpointBackend, ProbeSpec
    from data_prep.probe.questions import Questions, labels_for
    from data_prep.probe.vllm_backend import VllmBackend
    from data_prep.report.text import print_stages
    from data_prep.verify.write import UnjudgedError

    if not 0 <= keep[0] <= keep[1] <= tries:
        raise ConfigError(f"--keep is {keep[0]} {keep[1]} of {tries} tries. Fix: 0 <= LOW <= HIGH <= --tries.")
    if episodes is not None:
        if out is None or solver or local:
            raise ConfigError("--episodes needs --out and no model: the episodes say how often it resolved a task.")
        from data_prep.difficulty.episodes import keep_between

        written, funnel = keep_between(pairs, episodes, out, (keep[0] / tries, keep[1] / tries))
        print_stages(f"{written} tasks", [stage.summary() for stage in funnel])
        typer.echo(f"{out}: {written} tasks")
        return
    spec = read_spec("--solver", solver, ProbeSpec)
    if (spec is None) == (not local):
        raise ConfigError("Give either --solver or --local: the model whose difficulty counts.")
    file = PairFile(pairs)
    rows = list(file.without_images())
    for row in rows:
        if tries % (options := row["options"]):
            raise ConfigError(
                f"--tries is {tries}, and pair {row['pair_id']!r} has {options} contexts: the right one would stand in "
                f"some position more often. Fix: a multiple of {options}, e.g. {options * max(1, round(8 / options))}."
            )
    prompt = PromptConfig(template=template, labels=labels_for(max(row["options"] for row in rows)))
    asked = VllmBackend(local, prompt, cache=cache, seed=seed) if local else EndpointBackend(spec, prompt, written=True)
    # Each position of the supporting context equally often.
    questions = Questions(prompt, seed, lambda options: tries // options)
    every = (question for row, pair in enumerate(file) for question in questions.of(pair, row))
    if dry_run:
        typer.echo(f"{len(file) * tries} tries on this machine" if local else asked.sentence(every))
        return
    if out is None:
        raise ConfigError("--out is missing. Fix: name the file for the pairs that stay, or ask for a --dry-run.")
    total = sum(row["options"] for row in rows)
    table = tries_of(tqdm(asked.answers(every), total=total, desc=f"{tries} tries at each pair", unit="question"))
    found, funnel = by_pair(table), Funnel()
    decisions = decide(file, found, tries, keep, funnel)
    funnel.check()
    untried = [one for one in decisions.values() if one.reason.startswith("not tried")]
    if untried and not allow_untried:
        raise UnjudgedError(
            f"{len(untried)} pairs could not be tried (the first is {untried[0].pair_id!r}: {untried[0].detail}). "
            "Replies that came are in the cache. Fix: mend the cause (raise max_cost, see that the endpoint is up) and "
            "run the command again, or leave those pairs out with --allow-untried."
        )
    if not any(one.kept for one in decisions.values()):
        counts = ", ".join(f"{reason} ({count})" for reason, count in sorted(funnel.stages[0].dropped.items()))
        raise ConfigError(f"no pair is left: {counts}. Fix: other bounds with --keep, or other pairs.")
    written = write_pairs(with_bytes(kept_pairs(file, found, decisions, asked.name)), out)
    if report is not None:
        write_page(report, file, table, decisions, funnel, model=asked.name, each=tries, usage=asked.summary())
    print_stages(f"{written} of {len(file)} pairs", [stage.summary() for stage in funnel])
    typer.echo(f"{written} of {len(file)} pairs written to {out}" + (f"; report: {report}" if report else ""))
