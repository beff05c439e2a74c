"""``contextrl probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# How messages of the shared code name what this command calls otherwise.
_NAMES = {
    "actor_rollout_ref.model.custom_chat_template": "--chat-template",
    "actor_rollout_ref.model.path": "--model",
    "contextrl.prompt.chat_template_kwargs": "--chat-template-kwargs",
    "contextrl.prompt.template": "--template",
    "contextrl.prompt.labels": "--labels",
    "contextrl.prompt.prefill": "--prefill",
    "contextrl.prompt.special_tokens_in_text": "--special-tokens-in-text",
}
_PROMPT = ("template", "labels", "prefill", "chat_template_kwargs", "special_tokens_in_text")


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
    backend: Annotated[Literal["transformers", "vllm"], typer.Option(help="What loads --model.")] = "transformers",
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
    special_tokens_in_text: Annotated[
        Literal["keep", "split"], typer.Option(help="As contextrl.prompt.special_tokens_in_text.")
    ] = "keep",
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

    from contextrl_verl import __version__
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs.files import PairFile
    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.models.spec import read_spec
    from data_prep.probe.endpoint_backend import EndpointBackend, ProbeSpec
    from data_prep.probe.local_backend import PLAIN, PLAIN_PREFILL, TransformersBackend
    from data_prep.probe.questions import Questions, labels_for
    from data_prep.probe.report import compared, comparison_sentence, read_result, write_folder
    from data_prep.probe.run import probe
    from data_prep.probe.vllm_backend import VllmBackend

    began, file, hashed = time.monotonic(), PairFile(pairs), hashlib.sha256()
    with pairs.open("rb") as stream:
        while block := stream.read(1 << 20):
            hashed.update(block)
    pairs_digest = hashed.hexdigest()
    given = sum((bool(model), bool(endpoint), results is not None))
    rows = list(file.without_images())
    for wrong, problem in (
        (given != 1, "Give one of --model, --endpoint and --results: what is probed."),
        (results and not compare, "--results is an earlier probe: there is nothing to do with it. Fix: --compare."),
        (
            endpoint and (chat_template or plain or backend == "vllm" or engine),
            "--endpoint has its own chat template and engine. Fix: no --chat-template, --plain, --backend or --engine.",
        ),
        (sampled and not endpoint, "--sampled reads replies of an --endpoint. Fix: leave it out, logits say more."),
        (engine and backend != "vllm", "--engine is for --backend vllm. Fix: leave it out."),
        (plain and chat_template, "--plain and --chat-template are both given. Fix: give one of them."),
        (
            plain and any(row["kind"] == "images" for row in rows),
            "--plain shows text only, and the file holds images. Fix: --chat-template FILE.",
        ),
    ):
        if wrong:
            raise ConfigError(problem)
    earlier = {}
    for option, folder in (("--compare", compare), ("--results", results)):
        if folder is not None:
            summary, _ = earlier[option] = read_result(option, folder)
            if summary["pairs_digest"] != pairs_digest:
                raise ConfigError(
                    f"{option} {folder} was made from other pairs ({summary.get('pairs_file')!r}) than {pairs}: their "
                    "digests differ. Fix: probe both models on the same file."
                )
    if results is not None:
        typer.echo(comparison_sentence(compared(earlier["--results"], earlier["--compare"])))
        return
    named = tuple(label.strip() for label in labels.strip("[] ").split(",")) if labels else ()
    try:
        prompt = PromptConfig(
            template=template,
            labels=named or labels_for(max(row["options"] for row in rows)),
            prefill=(PLAIN_PREFILL if plain else "") if prefill is None else prefill,
            chat_template_kwargs=_named("--chat-template-kwargs", chat_template_kwargs),
            special_tokens_in_text=special_tokens_in_text,
        )
        text = PLAIN if plain else chat_template and chat_template.read_text(encoding="utf-8")
        more = {"dtype": dtype, "chat_template": text, "trust_remote_code": trust_remote_code, "cache": cache}
        if endpoint:
            asked = EndpointBackend(read_spec("--endpoint", endpoint, ProbeSpec), prompt, written=bool(sampled))
        elif backend == "transformers":
            asked = TransformersBackend(model, prompt, device=device, batch_tokens=batch_tokens, **more)
        else:
            asked = VllmBackend(model, prompt, engine=_named("--engine", engine), **more)
        found = probe(file, asked, Questions(prompt, seed, lambda _: sampled), limit=limit, skip_long=skip_long)
    except ConfigError as error:
        problems = error.problems
        for name, option in _NAMES.items():
            problems = [problem.replace(name, option) for problem in problems]
        raise ConfigError(*problems) from None
    made = {
        "model": asked.name,
        "pairs_file": pairs.name,
        "pairs_digest": pairs_digest,
        **{name: getattr(prompt, name) for name in _PROMPT},
        "chat_template": "the model's own" if text is None else hashlib.sha256(text.encode()).hexdigest()[:16],
        "seed": seed,
        "contextrl": __version__,
        "asked_with": asked.summary(),
        "seconds": round(time.monotonic() - began, 1),
    }
    comparison = compared((made, found.questions), earlier["--compare"]) if compare is not None else None
    for line in write_folder(out, found, made, file, comparison):
        typer.echo(line)
    typer.echo(f"{out}: summary.json, questions.parquet, probe.md, probe.png, index.html")


def _named(option: str, items: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE items; values are read as JSON where they are, else as text."""
    import json

    from contextrl_verl.errors import ConfigError

    values: dict[str, Any] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {item!r} is not NAME=VALUE. Fix: write e.g. {option} name=1.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
