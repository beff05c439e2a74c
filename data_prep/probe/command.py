"""``contextrl probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.probe.questions import Backend

# How messages of the shared code name what this command calls otherwise.
_NAMES = {
    "actor_rollout_ref.model.custom_chat_template": "--chat-template",
    "actor_rollout_ref.model.path": "--model",
    "contextrl.prompt.chat_template_kwargs": "--chat-template-kwargs",
    "contextrl.prompt.template": "--template",
    "contextrl.prompt.labels": "--labels",
    "contextrl.prompt.prefill": "--prefill",
}


def probe_command(
    pairs: Annotated[Path, typer.Argument(help="File of pairs (.parquet, .jsonl).")],
    model: Annotated[str, typer.Option(help="Model on this machine: Hugging Face name or folder.")] = "",
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Instead: model behind an OpenAI-compatible endpoint: model=M, base_url=URL, max_cost=5, ... (repeat; "
            "names as in contextrl judge --help).",
        ),
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Instead: --out folder of an earlier probe, as it is.")] = None,
    backend: Annotated[str, typer.Option(help="transformers or vllm, for --model.")] = "transformers",
    sampled: Annotated[
        int, typer.Option(min=0, help="With --endpoint: read so many written replies to each question, not logprobs.")
    ] = 0,
    compare: Annotated[Path | None, typer.Option(help="--out folder of a probe to compare with.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for numbers, table, picture and page.")] = Path("outputs/probe"),
    template: Annotated[str, typer.Option(help="As contextrl.prompt.template.")] = "select_context",
    labels: Annotated[str, typer.Option(help="As contextrl.prompt.labels, e.g. A,B. Default: A, B, C, ...")] = "",
    prefill: Annotated[
        str | None, typer.Option(help="As contextrl.prompt.prefill. Default: none; Answer: with --plain.")
    ] = None,
    chat_template_kwargs: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Such as enable_thinking=false (repeat).")
    ] = None,
    chat_template: Annotated[Path | None, typer.Option(help="Jinja file instead of the model's chat template.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="For base models: the question as plain text.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ... (transformers).")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float32, ...")] = "auto",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a batch, with padding (transformers).")] = 16384,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Argument of vllm.LLM (repeat).")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many pairs, couples whole; 0 for all.")] = 0,
    skip_long: Annotated[
        bool, typer.Option("--skip-long", help="Leave out pairs longer than the model's window, counted.")
    ] = False,
    cache: Annotated[
        Path, typer.Option(help="Folder of a --model's answers; a probe that was stopped goes on.")
    ] = Path("outputs/probe_cache"),
    seed: Annotated[int, typer.Option(help="Of the orders (as contextrl.seed) and of --limit.")] = 1,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """How well does a model select the context that supports the answer? Every pair in every order."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs import PairFormatError
    from data_prep.audit.view import AuditError
    from data_prep.models.errors import RemoteError

    try:
        from contextrl_verl.pairs.files import PairFile
        from data_prep.probe.chat_templates import PLAIN_PREFILL, read_template
        from data_prep.probe.questions import ProbeError

        file = PairFile(pairs)
        if sum((bool(model), bool(endpoint), results is not None)) != 1:
            raise ProbeError("Give one of --model, --endpoint and --results: what is probed.")
        if results is not None:
            if compare is None:
                raise ProbeError("--results is an earlier probe, and there is nothing to do with it. Fix: --compare.")
            _compare_results(pairs, results, compare)
            return
        text = read_template(chat_template, plain)
        if prefill is None:
            prefill = PLAIN_PREFILL if plain else ""
        prompt = _prompt(file, template, labels, prefill, _pairs_of("--chat-template-kwargs", chat_template_kwargs))
        if plain and any(row["kind"] == "images" for row in file.without_images()):
            raise ProbeError("--plain shows text only, and the file holds images. Fix: --chat-template FILE.")
        if endpoint and (chat_template or plain or backend != "transformers" or engine):
            raise ProbeError(
                "--endpoint has its own chat template and engine, so --chat-template, --plain, --backend and --engine "
                "do not go with it. Fix: leave them out."
            )
        if sampled and not endpoint:
            raise ProbeError(
                "--sampled reads replies of an --endpoint; a --model's logits say more. Fix: leave it out."
            )
        other = _other(pairs, compare) if compare is not None else None
        asked = (
            _endpoint(endpoint, prompt, sampled)
            if endpoint
            else _local(
                backend, model, prompt, device, dtype, batch_tokens, _pairs_of("--engine", engine), cache,
                chat_template=text, trust_remote_code=trust_remote_code,
            )
        )  # fmt: skip
        _run(pairs, file, asked, prompt, text, other, out=out, limit=limit, skip_long=skip_long, seed=seed)
    except (ConfigError, PairFormatError, RemoteError, AuditError) as error:
        said = str(error)
        for name, option in _NAMES.items():
            said = said.replace(name, option)
        typer.echo(f"contextrl probe: {said}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"contextrl probe: --out {out}: {error}. Fix: choose a folder that can be written.", err=True)
        raise typer.Exit(1) from None
    except ModuleNotFoundError as error:
        what = f"the package {error.name!r} is not installed" if error.name else str(error)
        typer.echo(
            f"contextrl probe: {what}. Fix: pip install 'contextrl-verl[audit]', with [verl] for a --model and [judge] "
            "for an --endpoint.",
            err=True,
        )
        raise typer.Exit(1) from None


def _run(
    path: Path,
    file: Any,
    asked: Backend,
    prompt: PromptConfig,
    chat_template: str | None,
    other: Any,
    *,
    out: Path,
    limit: int,
    skip_long: bool,
    seed: int,
) -> None:
    import time

    from tqdm import tqdm

    from contextrl_verl import __version__
    from data_prep.models.cache import digest
    from data_prep.probe.comparison import compare
    from data_prep.probe.questions import Questions
    from data_prep.probe.report import comparison_sentence, sentence, write_folder
    from data_prep.probe.run import probe

    def progress(items: Any, total: int, what: str, unit: str) -> Any:
        return tqdm(items, total=total, desc=what, unit=unit, delay=1)

    began = time.monotonic()
    found = probe(file, asked, Questions(prompt, seed), limit=limit, skip_long=skip_long, progress=progress)
    made = {
        "model": asked.name,
        "pairs_file": path.name,
        "pairs_digest": _digest(path),
        "template": prompt.template,
        "labels": list(prompt.labels),
        "prefill": prompt.prefill,
        "chat_template_kwargs": dict(prompt.chat_template_kwargs),
        "chat_template": "the model's own" if chat_template is None else digest(chat_template)[:16],
        "seed": seed,
        "contextrl": __version__,
        "asked_with": asked.summary(),
        "seconds": round(time.monotonic() - began, 1),
    }
    comparison = None
    if other is not None:
        summary, table = other
        comparison = {"model": summary["model"], **compare(found.questions, table)}
    said = write_folder(out, found, made, file, comparison)
    typer.echo(sentence(found, asked.name))
    if comparison is not None:
        typer.echo(comparison_sentence(comparison, asked.name))
    for text in said:
        typer.echo(f"  {text}")
    typer.echo(f"{out}: summary.json, questions.parquet, probe.md, probe.png, index.html")


def _prompt(file: Any, template: str, labels: str, prefill: str, chat_template_kwargs: dict[str, Any]) -> PromptConfig:
    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.probe.questions import labels_for

    given = tuple(label.strip() for label in labels.strip().strip("[]").split(",")) if labels.strip() else ()
    most = max(row["options"] for row in file.without_images())
    return PromptConfig(
        template=template,
        labels=given or labels_for(most),
        prefill=prefill,
        chat_template_kwargs=chat_template_kwargs,
    )


def _endpoint(items: list[str], prompt: PromptConfig, sampled: int) -> Backend:
    from data_prep.models.spec import read_role
    from data_prep.probe.endpoint_backend import EndpointBackend

    named = {item.partition("=")[0] for item in items}
    # Replies must differ; and log-probabilities are the model's own only at temperature 1.
    items = items if "temperature" in named else [*items, "temperature=1"]
    items = items if "cache" in named else [*items, "cache=outputs/probe_cache"]
    return EndpointBackend(read_role("--endpoint", items), prompt, sampled=sampled)


def _local(
    backend: str,
    model: str,
    prompt: PromptConfig,
    device: str,
    dtype: str,
    batch_tokens: int,
    engine: dict[str, Any],
    cache: Path,
    **more: Any,
) -> Backend:
    from data_prep.models.cache import ReplyCache
    from data_prep.probe.cached_backend import Remembered
    from data_prep.probe.questions import ProbeError

    prompted = [prompt.prefill, prompt.chat_template_kwargs, more["chat_template"]]

    if backend == "transformers":
        from data_prep.probe.transformers_backend import TransformersBackend

        if engine:
            raise ProbeError("--engine is for --backend vllm. Fix: leave it out.")
        loaded = TransformersBackend(model, prompt, device=device, dtype=dtype, batch_tokens=batch_tokens, **more)
        return Remembered(loaded, ReplyCache(cache), ["transformers", loaded.device.type, dtype, *prompted])
    if backend == "vllm":
        from data_prep.probe.vllm_backend import VllmBackend

        loaded = VllmBackend(model, prompt, dtype=dtype, engine=engine, **more)
        return Remembered(loaded, ReplyCache(cache), ["vllm", dtype, engine, *prompted])
    raise ProbeError(f"--backend is {backend!r}. Fix: transformers or vllm.")


def _pairs_of(option: str, items: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE items; values are read as JSON where they are, else as text."""
    import json

    from data_prep.probe.questions import ProbeError

    values: dict[str, Any] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ProbeError(f"{option} {item!r} is not NAME=VALUE. Fix: write e.g. {option} name=1.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _digest(path: Path) -> str:
    import hashlib

    state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _other(pairs: Path, compare: Path, option: str = "--compare") -> Any:
    """An earlier result, which must be of the same pairs."""
    from data_prep.probe.comparison import read_result
    from data_prep.probe.questions import ProbeError

    summary, table = read_result(option, compare)
    if summary["pairs_digest"] != _digest(pairs):
        raise ProbeError(
            f"{option} {compare} was made from other pairs ({summary.get('pairs_file')!r}) than {pairs}: their digests "
            "differ. Fix: probe both models on the same file."
        )
    return summary, table


def _compare_results(pairs: Path, results: Path, against: Path) -> None:
    from data_prep.probe.comparison import compare
    from data_prep.probe.report import comparison_sentence

    summary, table = _other(pairs, results, "--results")
    other, theirs = _other(pairs, against)
    typer.echo(comparison_sentence({"model": other["model"], **compare(table, theirs)}, summary["model"]))
