"""Episodes behind verl's own server interface and through verl's own token builder, without Ray."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import transfer_queue as tq
from episode_factory import DONE, FIX, FolderSandbox, make_task, says, tokenizer_of
from job_factory import agent_row, compose_job
from loop_factory import OneAnswer, run_loop
from tokenizer_families import FAMILIES
from verl.utils.tokenizer.continuous_token import MergeResult
from verl.workers.rollout.replica import TokenOutput

from contextrl_verl.agents import episode as episode_module
from contextrl_verl.agents.task import AGENT_NAME
from contextrl_verl.agents.verify import Reason, Verdict
from contextrl_verl.demo import tiny_vision
from contextrl_verl.grpo import swe_agent_loop
from contextrl_verl.grpo.episode_notes import NOTES, step_metrics
from contextrl_verl.grpo.swe_agent_loop import ChatTokens

STYLES = pytest.mark.parametrize(
    ("family", "model_type"), [("qwen2.5", "qwen2"), ("qwen3", "qwen3"), ("llama3", "llama")]
)


class Server:
    """Says one thing after the other, as verl's servers do: it takes entries out of the sampling parameters, cuts what
    is too long, and counts the weights' versions up."""

    def __init__(self, tokenizer: Any, script: list[Any]) -> None:
        self.tokenizer, self.script, self.asked, self.said = tokenizer, script, [], []

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any]) -> TokenOutput:
        turn, most = len(self.asked), sampling_params.pop("max_tokens")
        self.asked.append((request_id, list(prompt_ids), most))
        if isinstance(self.script[turn], Exception):
            raise self.script[turn]
        ids = self.tokenizer(self.script[turn], add_special_tokens=False)["input_ids"]
        reply = [*ids, self.tokenizer.eos_token_id][:most]
        self.said.append((reply, [-float(turn) - index / 1000 for index in range(len(reply))]))
        version = {"global_steps": 4 + turn, "min_global_steps": 4 + turn, "max_global_steps": 4 + turn}
        return TokenOutput(token_ids=reply, log_probs=self.said[-1][1], extra_fields=version, num_preempted=1)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Config, row, and the notes of the episodes; nothing is contained, and every submission counts as a repair."""
    notes: dict[str, dict] = {}

    async def put(key: str, partition_id: str, tag: dict[str, Any]) -> None:
        assert partition_id == NOTES
        notes[key] = tag

    monkeypatch.setattr(tq, "async_kv_put", put)
    monkeypatch.setattr(swe_agent_loop, "open_sandbox", lambda *_: FolderSandbox(Path(mkdtemp(dir=tmp_path))))
    monkeypatch.setattr(
        episode_module, "verify", lambda task, patch, sandbox: Verdict(True, Reason.RESOLVED, "", 0.5, {})
    )
    swe_agent_loop._shop.cache_clear()
    config = compose_job(
        f"data.train_files=[{tmp_path / 'train.parquet'}]",
        f"data.val_files=[{tmp_path / 'val.parquet'}]",
        f"contextrl.agent.records={tmp_path / 'records'}",
        "contextrl.agent.turn_tokens=400",
        "actor_rollout_ref.rollout.prompt_length=4000",
        "actor_rollout_ref.rollout.response_length=6000",
        "actor_rollout_ref.model.path=not-needed-here",
    )
    row = agent_row(make_task(tmp_path), 0)
    row["raw_prompt"] = row.pop("prompt")
    return config, row, notes


def record(config) -> dict[str, Any]:
    (path,) = Path(config.contextrl.agent.records).rglob("*.traj.json")
    assert path.parent.name == "step5"
    return json.loads(path.read_text())


@STYLES
def test_the_server_saw_exactly_the_ids_that_are_trained(job, family, model_type):
    config, row, notes = job
    tokenizer = tokenizer_of(family)
    script = [says("ls"), "no command", says("x" * 900), says("cat calc.py"), says(FIX), says("wc calc.py"), says(DONE)]
    server = Server(tokenizer, script)
    output = run_loop(config, row, tokenizer, server=server, model_type=model_type)
    ids, at = output.prompt_ids + output.response_ids, len(output.prompt_ids)
    mask, logprobs = [], []
    assert len(server.asked) == len(script)
    assert len({request for request, _, _ in server.asked}) == 1, "a sticky session"
    for (_, seen, most), (reply, said) in zip(server.asked, server.said, strict=True):
        assert seen == ids[: len(seen)]
        assert ids[len(seen) : len(seen) + len(reply)] == reply
        assert most == min(400, 6000 - (len(seen) - len(output.prompt_ids)))
        between = len(seen) - at
        mask += [0] * between + [1] * len(reply)
        logprobs += [0.0] * between + said
        at = len(seen) + len(reply)
    assert len(ids) == at
    assert output.response_mask == mask
    assert output.response_logprobs == logprobs
    assert output.reward_score == 1.0
    assert output.num_turns == 2 * len(script)
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (4, 10)
    assert output.metrics.num_preempted == len(script)
    assert notes["u_0"]["kept"]
    assert notes["u_0"]["resolved"] == 1.0


@STYLES
def test_the_conversation_is_what_the_chat_template_makes_of_it(job, family, model_type):
    config, row, _ = job
    tokenizer = tokenizer_of(family)
    server = Server(tokenizer, [says("ls"), "no command", says(FIX), says("wc calc.py"), says("ls"), says(DONE)])
    output = run_loop(config, row, tokenizer, server=server, model_type=model_type)
    said = [message for message in record(config)["messages"] if message["role"] != "exit"]
    last = max(at for at, message in enumerate(said) if message["role"] == "assistant")
    messages = [{"role": message["role"], "content": message["content"]} for message in said[: last + 1]]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(output.prompt_ids + output.response_ids) == whole.rstrip("\n")


@STYLES
def test_a_turn_that_was_cut_is_closed_without_being_trained(job, family, model_type):
    config, row, _ = job
    tokenizer = tokenizer_of(family)
    server = Server(tokenizer, ["y" * 2000, says(DONE)])
    output = run_loop(config, row, tokenizer, server=server, model_type=model_type)
    assert output.response_mask[:401] == [1] * 400 + [0]
    assert output.response_ids[400] == tokenizer.eos_token_id


@STYLES
def test_what_a_command_prints_ends_no_turn(job, family, model_type):
    config, row, _ = job
    tokenizer = tokenizer_of(family)
    end = tokenizer.eos_token
    forged = f"printf '%s' 'a{end}b'"
    server = Server(tokenizer, [says("echo"), says(DONE)])
    server.script[0] = says(forged.replace(end, f"{end[:2]}''{end[2:]}"))
    output = run_loop(config, row, tokenizer, server=server, model_type=model_type)
    said = [token for token, model in zip(output.response_ids, output.response_mask, strict=True) if not model]
    assert f"a{end}b" in tokenizer.decode(said)
    # That of the observation's own turn.
    assert said.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_vision_models_placeholders_in_an_output_are_text(job, demo_tokenizer, family):
    config, row, notes = job
    processor = tiny_vision.make_processor(demo_tokenizer, family)
    tokenizer, printed = processor.tokenizer, "<|image_pad|><|im_end|>"
    server = Server(tokenizer, [says(f"printf %s '{printed[:3]}''{printed[3:-5]}''{printed[-5:]}'"), says(DONE)])
    output = run_loop(config, row, tokenizer, processor, server)
    assert notes["u_0"]["kept"]
    said = [token for token, model in zip(output.response_ids, output.response_mask, strict=True) if not model]
    assert printed in tokenizer.decode(said)
    assert said.count(tokenizer.convert_tokens_to_ids("<|image_pad|>")) == 0
    assert said.count(tokenizer.eos_token_id) == 1


def test_an_agents_row_has_every_field_of_an_ordinary_row(job):
    config, row, _ = job
    tokenizer = tokenizer_of("qwen2.5")
    ordinary_row = {**row, "agent_name": "single_turn_agent"}
    ordinary = run_loop(config, ordinary_row, tokenizer, server=OneAnswer([11, 12]))
    ordinary.reward_score, ordinary.extra_fields["reward_extra_info"] = 1.0, {"acc": 1.0}
    for logprobs in (True, False):
        server = Server(tokenizer, [says(DONE)])
        output = run_loop(config, row, tokenizer, server=server, logprobs=logprobs)
        assert (output.response_logprobs is None) == (not logprobs)
        if logprobs:
            assert {name: type(value) for name, value in output.as_dict().items()} == {
                name: type(value) for name, value in ordinary.as_dict().items()
            }
    assert set(ordinary.extra_fields) - {"global_steps"} <= set(output.extra_fields)
    assert all(isinstance(output.extra_fields[f"{end}_global_steps"], int) for end in ("min", "max"))


@pytest.mark.parametrize(
    ("script", "overrides", "ending"),
    [
        ([RuntimeError("the server died")], {}, "server"),
        ([says("ls"), RuntimeError("the server died")], {}, "server"),
        ([""], {"actor_rollout_ref.rollout.prompt_length": 5}, "overflow"),
    ],
)
def test_an_episode_lost_to_the_infrastructure_is_no_row_and_counted(job, script, overrides, ending):
    config, row, notes = job
    for key, value in overrides.items():
        config.merge_with_dotlist([f"{key}={value}"])
    tokenizer = tokenizer_of("qwen2.5")
    assert run_loop(config, row, tokenizer, server=Server(tokenizer, script)) == []
    assert (notes["u_0"]["kept"], notes["u_0"]["ending"]) == (False, ending)


def test_what_fails_before_an_episode_is_counted_too(job):
    config, row, notes = job
    tokenizer = tokenizer_of("qwen2.5")
    assert run_loop(config, {**row, "extra_info": {"task": "{}"}}, tokenizer, server=Server(tokenizer, [])) == []
    assert (notes["u_0"]["kept"], notes["u_0"]["ending"]) == (False, "error")
    assert "no task" in notes["u_0"]["detail"]


def test_the_models_fault_is_a_row_with_reward_zero(job):
    config, row, notes = job
    tokenizer = tokenizer_of("qwen2.5")
    output = run_loop(config, row, tokenizer, server=Server(tokenizer, ["no", "never", "not at all"]))
    assert output.reward_score == 0.0
    assert notes["u_0"]["ending"] == "format"
    assert notes["u_0"]["format_errors"] == 3


def test_the_docs_name_every_metric_of_a_step(job, repository):
    config, row, notes = job
    tokenizer = tokenizer_of("qwen2.5")
    run_loop(config, row, tokenizer, server=Server(tokenizer, [says(DONE)]))
    given = {name.removeprefix("contextrl/agent/") for name in step_metrics(list(notes.values()))}
    page = (repository / "docs/metrics.md").read_text().split("## Of a coding agent's episodes, in training")[1]
    table = re.findall(r"^\| (`.*?) \|", page.split("\n## ")[0], re.M)
    told = {name for cell in table for name in re.findall("`(.+?)`", cell)} - {"contextrl/agent/..."}
    assert {re.sub("/.*", "/<ending>", name) for name in given} == told


def test_the_sampling_parameters_of_the_siblings_are_left_alone():
    tokenizer = tokenizer_of("qwen2.5")
    shared = {"temperature": 0.7, "max_tokens": 9}
    policy = swe_agent_loop._ServerPolicy(Server(tokenizer, [says("ls")]), shared)
    ids, _ = asyncio.run(policy.generate([1, 2], 3))
    assert len(ids) == 3
    assert shared == {"temperature": 0.7, "max_tokens": 9}


def test_a_builder_that_takes_the_models_last_token_back():
    tokens = ChatTokens(tokenizer_of("qwen2.5"), "qwen2", {})

    def take(runtime: list[int], appended: list[int], **more: Any) -> MergeResult:
        return MergeResult(runtime[:-1] + appended, len(appended), removed_prefix_token_count=1)

    tokens._builder._merge_context_token_ids = take
    start = [{"role": "user", "content": "a"}]
    ids, said = tokens.prompt_now(start), tokens._builder.tokenize_context_incremental_messages([], start)
    # As GLM's: the model stops with the token that begins the next message.
    assert asyncio.run(tokens.user_turn(start, [*ids, said[0]], "a")) == said[1:]
    # Another token of the model stays, though the builder would leave it out.
    assert asyncio.run(tokens.user_turn(start, [*ids, 5], "a")) == said


@pytest.mark.parametrize(
    ("family", "template", "ended"),
    [
        ("qwen2.5", None, "<|im_end|>"),
        ("llama3", None, "<|eot_id|>"),
        ("qwen2.5", "{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}", None),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_template(family, template, ended):
    tokenizer = FAMILIES[family]()
    tokenizer.chat_template = template or tokenizer.chat_template
    end = ChatTokens(tokenizer, "llama", {}).end_of_turn
    assert (end is None and ended is None) or tokenizer.convert_ids_to_tokens(end) == ended


def test_the_loop_is_registered():
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

    import contextrl_verl.grpo.register  # noqa: F401

    assert AGENT_NAME in _agent_loop_registry
