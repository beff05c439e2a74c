"""What a machine with a GPU says of this project, as one table; ``make test-gpu``. No downloads, ten minutes at most.

Runs with whatever torch and transformers there are. Without verl or Ray the engine is left out and said to be; hook,
objective, positions, trimming and memory run on plain torch. Exit status 1 if anything is wrong, 0 if things are only
missing.

    python tests/gpu/report.py [--append docs/cost.md] [--device cpu --quick]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
ENGINE = ROOT / "tests" / "engine"
# bf16 keeps 8 bits: single gradients move by tens of percent, the direction hardly. That the factors are right is what
# fp32 shows; there TF32 is off.
LARGEST_ERROR, SMALLEST_COSINE = {"fp32": 1e-4, "bf16": 0.5}, {"fp32": 0.99999, "bf16": 0.97}
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"


@dataclass(frozen=True)
class Line:
    """One row of the table; ``good`` is None where something could not be run."""

    part: str
    what: str
    said: str
    good: bool | None = True


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def judged(part: str, what: str, precision: str, case: dict) -> Line:
    if "failed" in case:
        return Line(part, what, case["failed"], False)
    good = case["error"] <= LARGEST_ERROR[precision] and case["cosine"] >= SMALLEST_COSINE[precision]
    return Line(part, what, f"error {case['error']:.1e}, cosine {case['cosine']:.5f}", good)


def machine(device: str) -> Iterator[Line]:
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    cards = torch.cuda.device_count() if device == "cuda" else 0
    yield Line("machine", "device", f"{name}, {cards} card{'s' * (cards != 1)}")
    versions = []
    for package in ("torch", "transformers", "verl", "ray", "vllm", "flash_attn", "tensordict"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    yield Line("machine", "versions", ", ".join(versions))


def plain(device: str) -> Iterator[Line]:
    """Without verl, in this process."""
    import plain_torch
    import torch

    os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    from ranks import free_port

    os.environ["MASTER_PORT"] = str(free_port())
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    flash = device == "cuda" and has("flash_attn")
    for precision in ("fp32", "bf16"):
        attention = "flash_attention_2" if flash and precision == "bf16" else "sdpa"
        for way in plain_torch.WAYS:
            for tied in (True, False):
                what = f"{way}, {'tied' if tied else 'untied'} head, {precision}, {attention}"
                try:
                    error, cosine = plain_torch.gradient_error(way, tied, precision, attention, device)
                    case = {"error": error, "cosine": cosine}
                except Exception as failed:
                    case = {"failed": f"{type(failed).__name__}: {' '.join(str(failed).split())[:300]}"}
                yield judged("plain torch, FSDP2", what, precision, case)
    torch.distributed.destroy_process_group()


def through_verl(device: str, ranks: int = 1) -> Iterator[Line]:
    """The engine's gradients and scores, each script in processes of its own."""
    missing = [name for name in ("verl", "ray", "tensordict", "peft") if not has(name)]
    part = "engine" if ranks == 1 else f"engine, {ranks} ranks"
    if missing:
        yield Line(part, "all", f"not run: {', '.join(missing)} not installed", None)
        return
    flash = device == "cuda" and has("flash_attn")
    if device == "cuda" and not flash:
        yield Line(part, "flash-attention", "not run: flash_attn is not installed; SDPA in its place", None)
    for precision in ("fp32", "bf16"):
        attention = "flash_attention_2" if flash and precision == "bf16" else "sdpa"
        run = {"device": device, "attention": attention, "precision": precision, "ranks": ranks}
        for case in script(Path(__file__).with_name("engine_cases.py"), **run):
            yield judged(part, f"{case.get('case', 'script')} {precision} {attention}", precision, case)
        if precision == "bf16" and ranks == 1:
            for case in script(ENGINE / "scoring.py", **run):
                name = case.get("case", case.get("beside", "script"))
                if "failed" in case:
                    yield Line("scoring", name, case["failed"], False)
                else:
                    # Packed and alone, a row's scores differ by bf16's rounding.
                    good = case["error"] <= 0.5 and case.get("finite", True)
                    yield Line("scoring", f"{name} {attention}", f"differs by {case['error']:.1e}", good)
        if ranks > 1 and attention != "sdpa":
            for case in script(ENGINE / "ulysses.py", **run):
                if "case" in case or "failed" in case:
                    yield judged("Ulysses", case.get("case", "script"), precision, case)
    if ranks > 1 and not flash:
        yield Line("Ulysses", "all", "not run: it needs flash_attn", None)


def script(path: Path, *, device: str, attention: str, precision: str, ranks: int) -> list[dict]:
    """The JSON lines of a script; of one that fails, what it said last."""
    from ranks import run_ranks

    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    environment |= {"CONTEXTRL_TEST_DEVICE": device, "CONTEXTRL_TEST_PRECISION": precision}
    environment["PYTHONPATH"] = os.pathsep.join([str(ENGINE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    if device == "cpu":
        from contextrl_verl.patches.cpu.environment import cpu_environment

        environment = {**cpu_environment(), **environment}
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run_ranks(path, ranks, f"{folder}/model", environment=environment, attention=attention)
        except AssertionError as failed:
            last = [line for line in str(failed).splitlines() if line.strip()][-1]
            return [{"failed": f"{path.name}: {last[:300]}"}]


def memory(device: str, lengths: list[int]) -> Iterator[Line]:
    from bench.pair_memory import SIZES, VOCABULARY, compare

    width, precision = SIZES[device]
    setting = f"width {width}, vocabulary {VOCABULARY:,}, {precision}"
    for row in compare(lengths, device):
        for kind, name in (("all", "all logits"), ("read", "those that are read")):
            one = row[kind]
            said = f"{one['bytes'] / 2**30:.2f} GiB, {one['seconds'] * 1e3:,.0f} ms" if one else "out of memory"
            yield Line(
                "a pair's update", f"{row['tokens']:,} tokens, {name}; {setting}", said, bool(one) or kind == "all"
            )


def table(lines: list[Line]) -> str:
    rows = [f"| {line.part} | {line.what} | {line.said} | {MARK[line.good]} |" for line in lines]
    return "\n".join(["| part | what | said | |", "|---|---|---|---|", *rows])


MARK = {True: "good", False: "WRONG", None: "not run"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="short pairs and plain torch alone")
    parser.add_argument(
        "--append", type=Path, help=f"a document: the table replaces what stands between {BEGIN} and {END}"
    )
    given = parser.parse_args()
    if not has("torch") or not has("transformers"):
        print("make test-gpu needs torch and transformers. Fix: run it with the Python that has them.", file=sys.stderr)
        return 2
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "make test-gpu: torch sees no CUDA device here. Fix: run it on a machine with a GPU and a CUDA build of "
            "torch; python tests/gpu/report.py --device cpu --quick shows what it does.",
            file=sys.stderr,
        )
        return 2
    started, lines = time.monotonic(), []
    parts = [machine(given.device), plain(given.device)]
    parts.append(memory(given.device, [64, 256] if given.quick else [8192, 32_768]))
    if not given.quick:
        parts.append(through_verl(given.device))
        if given.device == "cuda" and torch.cuda.device_count() > 1:
            parts.append(through_verl("cuda", ranks=2))
        elif given.device == "cuda":
            parts.append(iter([Line("engine, 2 ranks", "all", "not run: there is one card", None)]))
    for part in parts:
        for line in part:
            lines.append(line)
            print(f"{MARK[line.good]:>8}  {line.part}: {line.what}: {line.said}", flush=True)
    wrong = sum(line.good is False for line in lines)
    left = sum(line.good is None for line in lines)
    summary = f"{len(lines)} lines, {wrong} wrong, {left} not run, {time.monotonic() - started:.0f} s."
    print(summary)
    if given.append:
        from bench.common import write_into
        from contextrl_verl.pairs.whole_file import whole_file

        text = write_into(given.append, f"{table(lines)}\n\n{summary} Made by `make test-gpu`.", BEGIN, END)
        with whole_file(given.append) as scratch:
            scratch.write_text(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
