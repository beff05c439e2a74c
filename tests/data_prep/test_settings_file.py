"""Settings from a class, a YAML file, ``--set`` and a command's own options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from contextrl_verl.errors import ConfigError
from data_prep.common.settings_file import load_settings


class Search(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    band: tuple[float, float] = (0.1, 0.9)
    near: int = Field(5, ge=0)


@dataclass(frozen=True)
class Outer:
    name: str = "n"
    level: Literal["file", "class"] = "class"
    limit: int | None = None
    replay: bool = False
    shares: dict[str, float] = field(default_factory=lambda: {"train": 1.0})
    search: Search = field(default_factory=Search)


def test_the_file_then_set_then_the_command_s_own_options(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: f\nlimit: 3\nsearch:\n  near: 7\n  band: [0, 1]\nshares: {train: 0.5, probe: 0.5}\n")
    sets = ["search.near=8", "name=12", "replay=true", "limit=null"]
    assert load_settings(Outer, None, []) == Outer()
    assert load_settings(Outer, file, sets, name="own", limit=None) == Outer(
        name="own", replay=True, shares={"train": 0.5, "probe": 0.5}, search=Search(near=8, band=(0, 1))
    )
    assert load_settings(Outer, None, ["shares.probe=1", "search.band=[0.2, 0.3]"]) == Outer(
        shares={"probe": 1.0}, search=Search(band=(0.2, 0.3))
    )
    assert load_settings(Outer, None, ["name=12"]).name == "12"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["nearer=3"],
            r"--set names 'nearer', and there is no such setting. Fix: name, level, .*search.band, search.n",
        ),
        (["search.far=3"], "names 'search.far'"),
        (["search=3"], "names 'search'"),
        (["name"], "--set 'name' names no value. Fix: --set name=value"),
        (["name=a", "name=b"], "--set gives name twice, 'a' and 'b'"),
        (["search.band=[0.2"], "is no YAML behind the ="),
        (["search.near=-1"], "search.near is '-1'. Fix: input should be greater than or equal to 0"),
        (["level=line"], "level is 'line'. Fix: input should be 'file' or 'class'"),
        (["replay=maybe", "limit=x"], r"(?s)2 things to mend:.*1. limit is 'x'.*2. replay is 'maybe'"),
    ],
)
def test_mistakes_name_value_place_and_fix(sets, said):
    with pytest.raises(ConfigError, match=said):
        load_settings(Outer, None, sets)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "nearer: 3\n", "search: 3\n"])
def test_a_file_that_does_not_fit_is_named(tmp_path, text):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"--config .*s.yaml.*Fix:"):
        load_settings(Outer, file, [])
