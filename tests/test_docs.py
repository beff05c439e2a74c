"""What the docs say is there: links, commands with their options, keys, metrics, quoted messages; and howto.md runs."""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
SPAN = re.compile(r"`([^`\n]+)`")


def _blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text()) if name == language]


def _code(page: Path) -> list[str]:
    """Commands and code spans, one a line: fenced and indented blocks with continued lines joined, and `spans`."""
    text = page.read_text()
    fenced = [body for _, body in FENCE.findall(text)]
    rest = FENCE.sub("", text)
    indented = re.findall(r"^ {4}(.+)$", rest, re.M)
    lines = "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    return lines + SPAN.findall(re.sub(r"(?<=\S)\n(?=\S)", " ", rest))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@PAGE
def test_every_relative_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text())
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    wrong = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M) if target.suffix == ".md" else []
        if not target.exists() or (anchor and anchor not in map(_anchor, headings)):
            wrong.append(link)
    assert not wrong


@functools.cache
def _commands() -> dict[tuple[str, ...], set[str]]:
    import typer

    from contextrl_verl.cli import app

    found = {}

    def walk(command, path):
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        found[path] = options | {"--help"}

    walk(typer.main.get_command(app), ())
    return found


@PAGE
def test_every_command_exists_with_the_options_named(page):
    known, wrong = _commands(), []
    for line in _code(page):
        for written in re.findall(r"(?:^|[\s(;])contextrl ([a-z][^;|&#]*)", line):
            words = written.split()
            path = next((path for size in (2, 1) if (path := tuple(words[:size])) in known), None)
            # Of a group, such as pairs, only the group by itself is complete.
            group = path is not None and any(len(other) > len(path) and other[: len(path)] == path for other in known)
            if path is None or (group and re.fullmatch("[a-z][a-z-]+", (words[len(path) :] or [""])[0])):
                wrong.append(written)
                continue
            wrong += [f"{written}: {word}" for word in words if word.startswith("--") and word not in known[path]]
    assert not wrong


def test_the_check_of_commands_would_see_a_wrong_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\ncontextrl audit x.parquet \\\n  --no-such-option\n```\n"
        "`contextrl frobnicate`, `contextrl pairs nothing`\n"
    )
    with pytest.raises(AssertionError) as caught:
        test_every_command_exists_with_the_options_named(page)
    assert all(word in str(caught.value) for word in ("--no-such-option", "frobnicate", "pairs nothing"))


@PAGE
def test_every_file_and_module_named_exists(page):
    folders = "recipes|bench|tests|contextrl_verl|reward_fns|data_prep|constraints|docs"
    wrong = []
    for line in _code(page):
        paths = re.findall(rf"(?<![\w/.])((?:{folders})/[\w/-]+(?:\.\w+)?)", line)
        wrong += [path for path in paths if "..." not in line and not (ROOT / path).exists()]
        modules = re.findall(rf"python -m ((?:{folders})[\w.]*)", line)
        places = [ROOT / module.replace(".", "/") for module in modules]
        wrong += [str(at) for at in places if not at.with_suffix(".py").exists() and not (at / "__main__.py").exists()]
    assert not wrong


@PAGE
def test_every_key_of_the_block_exists(page):
    from contextrl_verl.settings import Settings

    wrong = []
    for key in {
        key for line in _code(page) for key in re.findall(r"(?<![\w./])contextrl\.([a-z_]+(?:\.[a-z_]+)*)", line)
    }:
        fields = Settings.model_fields
        for name in key.split("."):
            if name not in fields:
                wrong.append(key)
                break
            if str(getattr(fields[name], "type", "")).startswith("dict"):
                break  # the user's own keys
            inner = fields[name].annotation if hasattr(fields[name], "annotation") else None
            fields = getattr(inner, "model_fields", None) or getattr(inner, "__dataclass_fields__", {})
    assert not wrong


def test_the_metrics_of_pairs_are_those_of_the_engine():
    from contextrl_verl.objective import PairSums

    table = (ROOT / "docs/metrics.md").read_text().split("## Of the pairs, in training")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert told == {field.name for field in dataclasses.fields(PairSums)} | {"pairs", "coef", "zero_grpo_gradient"}


def _texts(folder: Path) -> list[str]:
    """String literals of the code; what is filled in at run time stands as ``...``."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
                )
    return found


def test_quoted_messages_are_those_of_the_code():
    texts = [text for name in ("contextrl_verl", "reward_fns", "data_prep") for text in _texts(ROOT / name)]
    wrong, checked = [], 0
    for table in re.split(r"\n\n", (ROOT / "docs/troubleshooting.md").read_text()):
        if table.startswith("| it says |"):
            for row in table.splitlines()[2:]:
                for quoted in SPAN.findall(row.split(" | ")[0]):
                    checked += 1
                    pieces = [re.escape(piece) for piece in quoted.split("...")]
                    if not any(re.search(".*".join(pieces), text, re.S) for text in texts):
                        wrong.append(quoted)
    assert not wrong
    assert checked > 20


def test_the_python_of_howto_runs(tmp_path):
    blocks = _blocks(ROOT / "docs/howto.md", "python")
    assert len(blocks) >= 10
    script = []
    for block in blocks:
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (tmp_path / name[1]).write_text(block)
        else:
            script.append(block)
    (tmp_path / "howto_script.py").write_text("\n".join(script))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "howto_script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
