"""The layers of the house (pyproject.toml, [tool.importlinter]), and what the lower ones do without."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="needs import-linter (make setup)")


def test_the_contracts_hold(repository):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[done.stdout.find("Broken contracts") :]


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("contextrl_verl", "pydantic numpy pyarrow torch transformers verl ray vllm"),
        ("contextrl_verl.pairs contextrl_verl.pairs.files contextrl_verl.pairs.prompting", "torch verl ray vllm"),
        ("contextrl_verl.pairs.option_tokens contextrl_verl.settings contextrl_verl.arms", "torch verl ray vllm"),
        ("contextrl_verl.sandbox", "pydantic numpy torch transformers verl ray"),
        ("contextrl_verl.cli", "numpy pyarrow torch transformers verl ray vllm sklearn openai"),
        ("reward_fns reward_fns.dispatch", "contextrl_verl data_prep torch verl"),
    ],
)
def test_a_low_layer_is_light(modules, absent):
    code = f"import sys, {', '.join(modules.split())}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & set(absent.split())


def test_a_newcomer_sees_the_package_at_a_glance(repository):
    entries = [path for path in (repository / "contextrl_verl").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 19
    long = {
        str(path): lines
        for folder in ("contextrl_verl", "data_prep", "reward_fns", "bench", "recipes")
        for path in (repository / folder).rglob("*.*")
        if path.suffix in (".py", ".sh", ".yaml", ".jinja") and (lines := len(path.read_text().splitlines())) > 350
    }
    assert not long
