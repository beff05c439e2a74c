"""Thousands of damaged records and files: every one is a run or a reject with a reason, and its neighbours come out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from event_records import ALL_MAKERS
from hypothesis import given
from hypothesis import strategies as st
from mutations import LIMIT, MUTATIONS
from run_records import MAKERS, packed, swe_smith, write_parquet

from data_prep.trajectories.edited_symbols import PatchError, touched
from data_prep.trajectories.readers import FORMATS, open_source, parse_record
from data_prep.trajectories.readers.records import Location, RawRecord, Rejected
from data_prep.trajectories.repo_state import replayed_patch
from data_prep.trajectories.run import AgentRun

REASONS = {
    *("damaged file", "damaged task patch", "empty file", "no instance id", "no messages", "no repository", "not JSON"),
    *("too large", "truncated", "undecodable bytes", "unknown content block", "unknown format", "wrong types"),
    *("patch under an unknown name", "turns of subagents"),
}
ENDINGS = {"none": "", "gz": ".gz", "xz": ".xz", "zst": ".zst"}


def checked(located: Any) -> str:
    """A run that is one, or the reason of the reject."""
    if isinstance(located.run, Rejected):
        assert located.run.reason in REASONS
        return located.run.reason
    assert isinstance(located.run, AgentRun)
    assert located.run.repository
    assert any(turn.role == "assistant" for turn in located.run.messages)
    for turn in located.run.messages:
        turn.content.encode("utf-8")
    return "run"


def neighbours_and_mutant(path: Path, maker: Callable[[int], dict], compression: str, rng: Random) -> Counter[str]:
    mutant = rng.choice(MUTATIONS)(maker(2), rng)
    lines = [json.dumps(maker(1)).encode(), mutant, json.dumps(maker(3)).encode()]
    path.write_bytes(packed(b"\n".join(lines) + b"\n", compression))
    found = list(open_source(path, max_record_bytes=LIMIT))
    whole = [parse_record(RawRecord(Location(""), line)) for line in (lines[0], lines[2])]
    assert found[0].run == whole[0]
    assert found[-1].run == whole[1]
    return Counter(checked(located) for located in found[1:-1])


@pytest.mark.parametrize("compression", ENDINGS)
@pytest.mark.parametrize("maker", MAKERS)
def test_mutated_lines_leave_their_neighbours_alone(tmp_path, maker, compression):
    """7 formats, 4 containers, 120 mutants each."""
    rng = Random(f"{maker} {compression}")
    seen: Counter[str] = Counter()
    for _ in range(120):
        seen += neighbours_and_mutant(tmp_path / f"a.jsonl{ENDINGS[compression]}", MAKERS[maker], compression, rng)
    assert seen["run"], "the mutations should leave some records usable"
    assert len(seen) >= 5, seen


@pytest.mark.parametrize("maker", ALL_MAKERS)
def test_mutated_documents(tmp_path, maker):
    """15 formats, 120 mutants each: one run or one reject a file."""
    rng = Random(maker)
    for number in range(120):
        data = rng.choice(MUTATIONS)(json.loads(json.dumps(ALL_MAKERS[maker](1), indent=2)), rng)
        path = tmp_path / "owner__name-5.traj.json"
        path.write_bytes(packed(data, rng.choice(list(ENDINGS))) if number % 3 == 0 else data)
        found = [checked(located) for located in open_source(path, max_record_bytes=LIMIT)]
        assert found or not data.strip()


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_mutated_containers(tmp_path, compression):
    """3 containers, 250 mutants each: what comes before the damage is what was written."""
    rng = Random(compression)
    data = b"".join(json.dumps(maker(n)).encode() + b"\n" for n in range(1, 4) for maker in MAKERS.values())
    good = packed(data, compression)
    path = tmp_path / f"a.jsonl{ENDINGS[compression]}"
    path.write_bytes(good)
    expected = [located.run for located in open_source(path)]
    for _ in range(250):
        damaged = bytearray(good)
        if rng.random() < 0.4:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(rng.choice([1, 10])):
                damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        found = list(open_source(path, max_record_bytes=LIMIT))
        reasons = [checked(located) for located in found]
        if len(damaged) < len(good):
            assert reasons[-1] in ("damaged file", "empty file", "truncated", "not JSON", "undecodable bytes")
            runs = [located.run for located in found if isinstance(located.run, AgentRun)]
            assert runs == expected[: len(runs)]


@pytest.mark.parametrize("maker", ["klear", "swe_smith"])
def test_mutated_tables(tmp_path, maker):
    """2 formats, 150 tables each: damage in the file, and odd columns."""
    rng = Random(maker)
    path = write_parquet(tmp_path / "a.parquet", [MAKERS[maker](n) for n in range(1, 7)])
    good = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(rng.choice([1, 5, 40])):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(4, len(damaged)) :]
        path.write_bytes(damaged)
        for located in open_source(path, max_record_bytes=LIMIT):
            checked(located)


def test_mutated_rows(tmp_path):
    """150 tables of three rows: the middle one is odd, the others come out."""
    rng = Random(5)
    seen: Counter[str] = Counter()
    for _ in range(150):
        rows = [swe_smith(n) for n in range(1, 4)]
        key = rng.choice(list(rows[1]))
        text = rows[1]["messages"]
        rows[1][key] = (
            rng.choice([None, text[: rng.randrange(len(text))], "[]", "3", "[3]", "x" * LIMIT * 2, '[{"role":'])
            if (key in ("messages", "patch", "instance_id"))
            else None
        )
        path = write_parquet(tmp_path / "a.parquet", rows, group=3)
        found = list(open_source(path, max_record_bytes=LIMIT))
        assert [located.run.instance_id for located in (found[0], found[2])] == [
            rows[0]["instance_id"],
            rows[2]["instance_id"],
        ]
        seen[checked(found[1])] += 1
    assert {"run", "too large", "no messages"} <= set(seen), seen


def test_replay_and_places_of_mutated_runs():
    """1,000 runs whose commands and outputs are damaged: a patch or none, places or a reason."""
    rng = Random(7)
    pieces = ["```bash\n", "\n```", "<<'EOF'\n", "EOF\n", "99999999\tx\n", "cat -n ", "@@ -1 +1 @@\n", "\n-", "\n+"]
    pieces += [
        "nl -ba x.py | sed -n '3,999999999p'",
        "<returncode>0</returncode>\n<output>\n",
        "sed -i '1,",
        "git diff",
    ]
    pieces += ["<function=str_replace_editor>\n<parameter=command>", "</parameter>", "s/(a*)*b/"]
    pieces += ["'", '"', "|", "$(", "\\", "&&", ">>"]
    outcomes: Counter[str] = Counter()
    for _ in range(1000):
        maker = MAKERS[rng.choice(list(MAKERS))]
        run = parse_record(RawRecord(Location(""), json.dumps(maker(1)).encode()))
        messages = []
        for turn in run.messages:
            text = turn.content
            for _ in range(rng.choice([0, 1, 3])):
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(pieces) + text[at + rng.randrange(20) :]
            messages.append(turn.model_copy(update={"content": text}))
        patch = run.patch
        if patch:
            at = rng.randrange(len(patch))
            patch = patch[:at] + rng.choice(pieces) + patch[at + rng.randrange(9) :]
        mutant = run.model_copy(update={"messages": tuple(messages), "patch": patch})
        outcomes["replayed" if replayed_patch(mutant) else "none"] += 1
        try:
            outcomes["places" if touched(patch, mutant) else "no places"] += 1
        except PatchError as error:
            outcomes[error.args[0]] += 1
    assert set(outcomes) <= {"none", "replayed", "places", "no places", "patch does not parse", "empty patch"}
    assert min(outcomes[key] for key in ("none", "replayed", "places", "patch does not parse", "empty patch")) > 20, (
        outcomes
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record(data):
    result = parse_record(RawRecord(Location(""), data))
    assert isinstance(result, Rejected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "messages", "info", "steps", "source", "text", "type", "tool_calls", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(value=json_values, format=st.sampled_from(list(FORMATS)))
def test_any_json_under_any_format(value, format):
    lists = ("messages", "steps", "history", "trajectory", "trajectory_steps", "session")
    record = {"instance_id": "owner__name-1", **dict.fromkeys(lists, value), "info": {}}
    result = parse_record(RawRecord(Location(""), record), format)
    assert isinstance(result, (Rejected, AgentRun))
