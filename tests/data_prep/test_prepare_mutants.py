"""5,000 damaged records among good ones, through the whole command: no crash, reasons for all, nothing good lost."""

from __future__ import annotations

import gzip
import json
from random import Random

import zstandard
from made_runs import made_run
from mutations import MUTATIONS

from contextrl_verl.pairs.files import PairFile
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.groups import GroupSettings
from data_prep.trajectories.prepare import PrepareSettings, prepare

# No cap and no band, so that what becomes of the good runs does not depend on their company.
SETTINGS = PrepareSettings(
    issue=("related",),
    overlap_cap=1,
    cascade=CascadeSettings(commit="any", related=(0.0, 1.0)),
    groups=GroupSettings(per_run=99, per_file=9999),
)
MUTANTS = 5000


def ids(path):
    return {pair.pair_id for pair in PairFile(path)}


def test_mutants_among_good_runs(tmp_path):
    good = [json.dumps(made_run(number)).encode() for number in range(24)]
    (tmp_path / "clean.jsonl").write_bytes(b"\n".join(good) + b"\n")
    prepare(tmp_path / "clean.jsonl", tmp_path / "clean.parquet", SETTINGS, workers=1, progress=False)

    rng = Random(11)
    # Each under a repository of its own, so that a mutant that is still a run makes no couple.
    mutants = [rng.choice(MUTATIONS)(made_run(n % 24, repository=f"mutant{n}__x"), rng) for n in range(MUTANTS)]
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, mutant in enumerate(mutants[:600]):
        (folder / f"m{number:03d}.traj.json").write_bytes(mutant)
    damaged = gzip.compress(b"\n".join(mutants[600:1200]))
    (folder / "cut.jsonl.gz").write_bytes(damaged[: len(damaged) // 2])
    lines = [*mutants[1200:], *good]
    rng.shuffle(lines)
    half = len(lines) // 2
    (folder / "a.jsonl").write_bytes(b"\n".join(lines[:half]) + b"\n")
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(b"\n".join(lines[half:]) + b"\n"))

    summary = prepare(folder, tmp_path / "mixed.parquet", SETTINGS, workers=2, progress=False)
    assert ids(tmp_path / "mixed.parquet") == ids(tmp_path / "clean.parquet")
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage
    read = summary["stages"][0]
    # The cut file ends early; every other record is there, as a run or with its reason.
    assert read["in"] >= MUTANTS - 600 + 24
    assert read["out"] >= 24
    assert len(read["dropped"]) >= 8, read
    assert "" not in read["dropped"]
