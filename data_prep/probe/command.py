"""``contextrl probe``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

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
    import hashlib
    import time

    from tqdm import tqdm

    from contextrl_verl import __version__
    from contextrl_verl.pairs.files import PairFile
    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.models.cache import digest
    from data_prep.probe.questions import ProbeError, Questions, labels_for
    from data_prep.probe.report import comparison_sentence, read_result, sentence, write_folder
    from data_prep.probe.run import probe
    from data_prep.probe.statistics import compare as compared
    from data_prep.probe.transformers_backend import PLAIN_PREFILL, read_template

    file = PairFile(pairs)
    if sum((bool(model), bool(endpoint), results is not None)) != 1:
        raise ProbeError("Give one of --model, --endpoint and --results: what is probed.")
    if results is not None and compare is None:
        raise ProbeError("--results is an earlier probe, and there is nothing to do with it. Fix: --compare.")
    state = hashlib.sha256()
    with pairs.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    pairs_digest = state.hexdigest()

    def earlier(option: str, folder: Path) -> Any:
        """An earlier result, which must be of the same pairs."""
        summary, table = read_result(option, folder)
        if summary["pairs_digest"] != pairs_digest:
            raise ProbeError(
                f"{option} {folder} was made from other pairs ({summary.get('pairs_file')!r}) than {pairs}: their "
                "digests differ. Fix: probe both models on the same file."
            )
        return summary, table

    def against(table: Any) -> dict[str, Any]:
        return {"model": other[0]["model"], **compared(table, other[1])}

    other = earlier("--compare", compare) if compare is not None else None
    if results is not None:
        summary, table = earlier("--results", results)
        typer.echo(comparison_sentence(against(table), summary["model"]))
        return
    if endpoint and (chat_template or plain or backend != "transformers" or engine):
        raise ProbeError(
            "--endpoint has its own chat template and engine, so --chat-template, --plain, --backend and --engine do "
            "not go with it. Fix: leave them out."
        )
    if sampled and not endpoint:
        raise ProbeError("--sampled reads replies of an --endpoint; a --model's logits say more. Fix: leave it out.")
    text, rows = read_template(chat_template, plain), list(file.without_images())
    if plain and any(row["kind"] == "images" for row in rows):
        raise ProbeError("--plain shows text only, and the file holds images. Fix: --chat-template FILE.")
    given = tuple(label.strip() for label in labels.strip().strip("[]").split(",")) if labels.strip() else ()
    with _names_of_options():
        prompt = PromptConfig(
            template=template,
            labels=given or labels_for(max(row["options"] for row in rows)),
            prefill=(PLAIN_PREFILL if plain else "") if prefill is None else prefill,
            chat_template_kwargs=_named("--chat-template-kwargs", chat_template_kwargs),
        )
        more = {"dtype": dtype, "chat_template": text, "trust_remote_code": trust_remote_code}
        arguments = _named("--engine", engine)
        if endpoint:
            asked = _endpoint(endpoint, prompt, sampled)
        elif backend == "transformers":
            if arguments:
                raise ProbeError("--engine is for --backend vllm. Fix: leave it out.")
            from data_prep.probe.transformers_backend import TransformersBackend

            loaded = TransformersBackend(model, prompt, device=device, batch_tokens=batch_tokens, **more)
            asked = _remembered(loaded, cache, ["transformers", loaded.device.type, dtype], text)
        elif backend == "vllm":
            from data_prep.probe.vllm_backend import VllmBackend

            loaded = VllmBackend(model, prompt, engine=arguments, **more)
            asked = _remembered(loaded, cache, ["vllm", dtype, arguments], text)
        else:
            raise ProbeError(f"--backend is {backend!r}. Fix: transformers or vllm.")
        began = time.monotonic()

        def progress(items: Any, total: int, what: str, unit: str) -> Any:
            return tqdm(items, total=total, desc=what, unit=unit, delay=1)

        found = probe(file, asked, Questions(prompt, seed), limit=limit, skip_long=skip_long, progress=progress)
    made = {
        "model": asked.name,
        "pairs_file": pairs.name,
        "pairs_digest": pairs_digest,
        "template": prompt.template,
        "labels": list(prompt.labels),
        "prefill": prompt.prefill,
        "chat_template_kwargs": dict(prompt.chat_template_kwargs),
        "chat_template": "the model's own" if text is None else digest(text)[:16],
        "seed": seed,
        "contextrl": __version__,
        "asked_with": asked.summary(),
        "seconds": round(time.monotonic() - began, 1),
    }
    comparison = against(found.questions) if other is not None else None
    said = write_folder(out, found, made, file, comparison)
    typer.echo(sentence(found, asked.name))
    if comparison is not None:
        typer.echo(comparison_sentence(comparison, asked.name))
    for notice in said:
        typer.echo(f"  {notice}")
    typer.echo(f"{out}: summary.json, questions.parquet, probe.md, probe.png, index.html")


@contextmanager
def _names_of_options() -> Iterator[None]:
    from contextrl_verl.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        problems = error.problems
        for name, option in _NAMES.items():
            problems = [said.replace(name, option) for said in problems]
        raise ConfigError(*problems) from None


def _endpoint(items: list[str], prompt: Any, sampled: int) -> Any:
    from data_prep.models.spec import read_spec
    from data_prep.probe.endpoint_backend import EndpointBackend, ProbeSpec

    return EndpointBackend(read_spec("--endpoint", items, ProbeSpec), prompt, sampled=sampled)


def _remembered(loaded: Any, cache: Path, made_by: list[Any], chat_template: str | None) -> Any:
    from data_prep.models.cache import ReplyCache
    from data_prep.probe.cached_backend import Remembered

    prompted = [loaded.prompt.prefill, loaded.prompt.chat_template_kwargs, chat_template]
    return Remembered(loaded, ReplyCache(cache), [*made_by, *prompted])


def _named(option: str, items: list[str] | None) -> dict[str, Any]:
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
