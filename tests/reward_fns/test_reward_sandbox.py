"""verl's own scorers and what they are given; code goes to the sandbox when there is one."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from job_factory import compose_job
from omegaconf import OmegaConf

from reward_fns import RewardConfigError, check_sources, compute_score
from reward_fns.registry import Registry

CODE = ["apps", "codecontests", "codeforces", "taco"]
SEARCH = ["nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"]
NUMINA = ["aops_forum", "synthetic_math", "amc_aime", "synthetic_amc", "cn_k12", "olympiads"]
BOXED = ["lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500"]
# All of verl's own, each with a right answer. Only those of CODE use what they are given beside the four arguments.
VERLS = [
    ("openai/gsm8k", "#### 4", "4"),
    *((source, r"\boxed{4}", "4") for source in [*BOXED, *(f"numina_{name}" for name in NUMINA), "hiyouga/geometry3k"]),
    *((source, "Answer: 4", "4") for source in ["math_dapo", "math", "math_dapo_reasoning", "aime_2024"]),
    *((f"searchR1_{name}", "<answer>4</answer>", {"target": ["4"]}) for name in SEARCH),
]


class Sandbox(ThreadingHTTPServer):
    """Speaks SandboxFusion's protocol, keeps what it was sent, and answers that the program printed its input."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/run_code"
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.open = self.most = 0


class Answer(BaseHTTPRequestHandler):
    server: Sandbox

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(asked)
            self.server.open += 1
            self.server.most = max(self.server.most, self.server.open)
        time.sleep(0.05)
        result = {"status": "Finished", "stdout": asked["stdin"], "stderr": "", "return_code": 0, "execution_time": 0.1}
        body = json.dumps({"status": "Success", "message": "", "compile_result": None, "run_result": result}).encode()
        with self.server.lock:
            self.server.open -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, fresh: Registry) -> Iterator[Sandbox]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Sandbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def program(marker: Path) -> str:
    return f"```python\nopen({str(marker)!r}, 'w').write('ran here')\nprint(input())\n```"


def cases(*, right: int, wrong: int = 0) -> str:
    inputs = [str(number) for number in range(right + wrong)]
    return json.dumps({"inputs": inputs, "outputs": [*inputs[:right], *["no"] * wrong]})


@pytest.mark.parametrize("source", CODE)
def test_code_goes_to_the_sandbox_of_the_job(sandbox: Sandbox, tmp_path: Path, source: str) -> None:
    from verl.trainer.ppo.reward import load_reward_manager

    settings = ["max_concurrent=2", "memory_limit_mb=77", f"url={sandbox.url}"]
    config = compose_job(*(f"reward.sandbox_fusion.{setting}" for setting in settings))
    result = load_reward_manager(config, tokenizer=None).compute_score(
        data_source=source,
        solution_str=program(tmp_path / "marker"),
        ground_truth=cases(right=6, wrong=2),
        extra_info={},
        reward_router_address="http://unused",
        reward_model_tokenizer=object(),
    )
    assert (result["score"], result["reward_fn"], result["reward_error"]) == (0.75, "verl", "")
    assert len(sandbox.requests) == 8
    assert all("ran here" in asked["code"] for asked in sandbox.requests)
    assert {asked["memory_limit_MB"] for asked in sandbox.requests} == {77}
    assert sandbox.most == 2
    assert not (tmp_path / "marker").exists()


def test_the_limit_holds_for_all_threads_of_a_process(sandbox: Sandbox, tmp_path: Path) -> None:
    block = {"url": sandbox.url, "max_concurrent": 3}
    call = ("apps", program(tmp_path / "marker"), cases(right=4))
    threads = [threading.Thread(target=compute_score, args=call, kwargs={"sandbox_fusion": block}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(sandbox.requests), sandbox.most) == (16, 3)
    assert {asked["memory_limit_MB"] for asked in sandbox.requests} == {1024}


def test_a_job_of_plain_verl_writes_the_same_keys(sandbox: Sandbox, tmp_path: Path) -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn

    table = {"registry": {"my/": f"{__name__}:takes_the_sandbox"}}
    function = {"path": "pkg://reward_fns.dispatch", "name": "compute_score"}
    block = {"_target_": "verl.workers.config.SandboxFusionConfig", "url": sandbox.url}
    for more in ({"sandbox_fusion": "${reward.sandbox_fusion}"}, {"sandbox_fusion_url": sandbox.url}):
        config = {"custom_reward_function": {**function, "reward_kwargs": {**table, **more}}, "sandbox_fusion": block}
        score = get_custom_reward_fn(OmegaConf.create({"reward": config}))
        call = {"solution_str": program(tmp_path / "marker"), "ground_truth": cases(right=2), "extra_info": None}
        assert score(data_source="apps", **call)["score"] == 1.0
        assert score(data_source="my/code", **call)["url"] == sandbox.url
    assert len(sandbox.requests) == 4
    assert not (tmp_path / "marker").exists()


def takes_the_sandbox(data_source, solution_str, ground_truth, extra_info, sandbox_fusion_url, memory_limit_mb=None):
    return {"score": 1.0, "url": sandbox_fusion_url}


def test_a_sandbox_that_is_down_does_not_run_code_here(fresh: Registry, tmp_path: Path) -> None:
    block = {"url": "http://127.0.0.1:9/run_code"}
    result = compute_score("apps", program(tmp_path / "marker"), cases(right=1), sandbox_fusion=block)
    assert result["score"] == 0.0
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("block", ["http://127.0.0.1", {"uri": "http://127.0.0.1"}, {}])
def test_a_block_without_a_url_is_refused(fresh: Registry, tmp_path: Path, block: Any) -> None:
    with pytest.raises(RewardConfigError, match=r"sandbox_fusion is .*Fix: set it to \$\{reward.sandbox_fusion\}"):
        compute_score("apps", program(tmp_path / "marker"), cases(right=1), sandbox_fusion=block)
    assert not (tmp_path / "marker").exists()


def test_without_a_sandbox_scorers_get_none_of_its_keys(fresh: Registry) -> None:
    got: list[dict[str, Any]] = []

    def anything(data_source: str, solution_str: str, ground_truth: str, extra_info: Any, **kwargs: Any) -> float:
        got.append(kwargs)
        return 1.0

    def one(data_source: str, solution_str: str, ground_truth: str, extra_info: Any, reward_router_address: str):
        got.append({"reward_router_address": reward_router_address})
        return 1.0

    fresh.register("any", anything)
    fresh.register("one", one)
    extras = {"reward_router_address": "http://judge", "reward_model_tokenizer": "tokenizer", "other": 1}
    for source in ("any", "one"):
        block = {"url": None, "max_concurrent": 64, "memory_limit_mb": 1024}
        assert compute_score(source, "A", "A", sandbox_fusion=block, **extras)["score"] == 1.0
    assert got == [extras, {"reward_router_address": "http://judge"}]


@pytest.mark.parametrize(("source", "response", "truth"), VERLS)
def test_all_of_verls_other_scorers_take_the_same_arguments(
    sandbox: Sandbox, source: str, response: str, truth: Any
) -> None:
    if source == "hiyouga/geometry3k":
        pytest.importorskip("mathruler")
    extras = {"reward_router_address": "http://judge", "reward_model_tokenizer": object(), "other": 1}
    result = compute_score(source, response, truth, {}, sandbox_fusion={"url": sandbox.url}, **extras)
    assert (result["score"], result["reward_fn"], result["reward_error"]) == (1.0, "verl", "")
    assert sandbox.requests == []


def test_these_are_all_of_verls() -> None:
    from verl.utils.reward_score import default_compute_score

    text = inspect.getsource(default_compute_score)
    assert all(f'"{source}"' in text for source, *_ in VERLS if not source.startswith("aime"))
    assert text.count("from . import") == 8 + 1, "one of verl's scorers is new (one import is in a comment)"
    assert list(inspect.signature(default_compute_score).parameters)[4:] == [
        *("sandbox_fusion_url", "concurrent_semaphore", "memory_limit_mb", "kwargs")
    ]


def test_asking_whether_verl_knows_a_source_runs_nothing(monkeypatch: pytest.MonkeyPatch, fresh: Registry) -> None:
    import requests
    from verl.utils.reward_score import prime_code

    def refuse(*_: Any, **__: Any) -> None:
        raise SystemExit("something was run")

    monkeypatch.setattr(prime_code, "compute_score", refuse)
    monkeypatch.setattr(requests, "post", refuse)
    assert check_sources(dict.fromkeys(CODE, 1)) == []
    with pytest.raises(RewardConfigError, match="ground_truth"):
        compute_score("apps", "```python\nprint(1)\n```", 3)
