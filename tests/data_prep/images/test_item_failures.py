"""One item's failure is that item's counted reject, whatever was raised; many failures are a bug and stop the job."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from easy_pictures import drawn
from made_pictures import noisy
from made_runs import made_run, write_runs
from scanned import lines as table
from scanned import picture_folder, read, row

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import PairFile
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.pipeline import PipelineError, refuse_failures, run_parts, total
from data_prep.images.edit import run as edit_run
from data_prep.images.edit.rules import EasyVqaRules
from data_prep.images.embed import parts as embed_parts
from data_prep.images.item import VqaItem
from data_prep.images.sources import scan as image_scan
from data_prep.images.store import ImageStore
from data_prep.trajectories import build, passes
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.prepare import PrepareSettings, find_candidates

RUNS = PrepareSettings(issue=("related",), overlap_cap=1, cascade=CascadeSettings(commit="any", related=(0.0, 1.0)))


def halves(payload, path):
    """Numbers, those in ``bad`` fail."""
    stage = (funnel := Funnel()).stage("halve", "numbers")
    for number in payload["numbers"]:
        try:
            if number in payload["bad"]:
                raise ZeroDivisionError(f"no half of {number}")
        except Exception as error:
            stage.fail(error, {"number": number})
            continue
        stage.keep()
    path.write_text("done")
    return funnel


def jobs(bad, each=40, count=3):
    return [{"numbers": list(range(each * at, each * (at + 1))), "bad": bad} for at in range(count)]


def run(folder, bad, **sizes):
    return total(run_parts(folder, jobs(bad, **sizes), halves, title="t", workers=1, progress=False))


def test_a_failure_is_counted_by_its_type_and_shows_where(tmp_path):
    (stage,) = run(tmp_path, [7, 50])
    assert (stage.entered, stage.left, stage.dropped) == (120, 118, {"raised ZeroDivisionError": 2})
    (first, _) = stage.samples["raised ZeroDivisionError"]
    assert first["number"] == 7
    assert "in halves" in first["traceback"]
    assert first["traceback"].endswith("ZeroDivisionError: no half of 7")


@pytest.mark.parametrize(
    ("bad", "sizes", "stops"),
    [
        (range(4), {}, False),
        (range(5), {}, True),  # of the 40 of its part
        ([0], {"each": 1, "count": 3}, False),
        (range(3), {"each": 1, "count": 3}, True),  # all of the stage, though one of each part
    ],
)
def test_many_failures_stop_with_the_first_traceback_and_are_done_again(tmp_path, bad, sizes, stops):
    if not stops:
        assert run(tmp_path, list(bad), **sizes).stages[0].dropped == {"raised ZeroDivisionError": len(bad)}
        return
    with pytest.raises(PipelineError, match=r"'halve'[\s\S]*Traceback[\s\S]*no half of 0\n[\s\S]*Fix:"):
        run(tmp_path, list(bad), **sizes)
    assert run(tmp_path, [], **sizes).stages[0].dropped == {}


@pytest.mark.parametrize("error", [ConfigError("wrong key"), MemoryError(), OSError(errno.ENOSPC, "disk full")])
def test_what_is_no_items_fault_goes_on_up(error):
    with pytest.raises(type(error)):
        Stage(name="s").fail(error, {})


def test_secrets_do_not_get_into_the_report():
    stage, key = Stage(name="s"), "sk-" + "proj-" + "a1B2c3D4" * 6
    try:
        raise ValueError(f"odd header {key}")
    except ValueError as error:
        stage.fail(error, {})
    assert key not in stage.model_dump_json()


class Broken(EasyVqaRules):
    """Raises what numpy does for some questions."""

    bad: set[str] = set()

    async def propose(self, item, image, seed):
        if item.item_id in self.bad:
            raise ValueError("All-NaN slice encountered")
        return await super().propose(item, image, seed)


def test_a_proposer_that_raises_costs_one_question(tmp_path, monkeypatch):
    monkeypatch.setitem(edit_run._LOCAL_PROPOSERS, "broken", Broken)
    store, funnel = ImageStore(tmp_path), Funnel()
    items = [VqaItem(f"q{n}", store.put(image), item.question, item.answer, "x", "x")
             for n, (item, image) in enumerate(drawn(12, seed=4))]  # fmt: skip
    settings = edit_run.EditSettings(edit_run.ProposerSpec(model="broken"))
    monkeypatch.setattr(Broken, "bad", {"q3"})
    found = edit_run.edit_here(items, tmp_path, settings, funnel)
    assert len(found.couples) == 11
    stage = funnel.stage("propose")
    assert (stage.entered, stage.dropped) == (12, {"raised ValueError": 1})
    assert stage.samples["raised ValueError"][0]["item_id"] == "q3"
    refuse_failures(funnel, whole=True)
    monkeypatch.setattr(Broken, "bad", {item.item_id for item in items})
    edit_run.edit_here(items, tmp_path, settings, everything := Funnel())
    with pytest.raises(PipelineError, match=r"'propose' failed unforeseen for 12 of 12[\s\S]*All-NaN slice"):
        refuse_failures(everything, whole=True)


def test_a_picture_that_no_reader_foresaw_costs_one_question(tmp_path, monkeypatch):
    picture_folder(tmp_path)
    real = image_scan.open_image

    def opened(data, limits):
        image = real(data, limits)
        if image.getpixel((0, 0)) == noisy(2).getpixel((0, 0)):
            raise IndexError("beyond the palette")
        return image

    monkeypatch.setattr(image_scan, "open_image", opened)
    rows = [row(f"deep/{number}.png", f"what is {number}?") for number in range(4)]
    items, dropped, _ = read(table(tmp_path / "t.jsonl", *rows), tmp_path / "work")
    assert len(items) == 3
    assert dropped == {"raised IndexError": 1}


def test_an_embedder_that_raises_costs_the_picture_that_it_raises_for(tmp_path, monkeypatch):
    store = ImageStore(tmp_path / "store")
    names = [store.put(noisy(number)) for number in range(6)]

    class Picky:
        name = "picky"

        def embed(self, images):
            if any(image.getpixel((0, 0)) == noisy(2).getpixel((0, 0)) for image in images):
                raise RuntimeError("odd picture")
            return np.ones((len(images), 4))

    monkeypatch.setattr(embed_parts, "make_embedder", lambda spec: Picky())
    plan = embed_parts.plan_embed(names, tmp_path / "store", "picky")
    done = run_parts(tmp_path / "work", plan, embed_parts.embed_part, title="t", workers=1, progress=False)
    (stage,) = total(done)
    assert (stage.left, stage.dropped) == (5, {"raised RuntimeError": 1})
    assert stage.samples["raised RuntimeError"][0]["images"] == [names[2]]
    assert sorted(embed_parts.load_embeddings([part.path for part in done]).images) == sorted({*names} - {names[2]})


@pytest.mark.parametrize(("step", "stage"), [("parse_record", "read"), ("hunks_of", "patch")])
def test_a_run_that_no_reader_foresaw_is_one_reject(step, stage, tmp_path, monkeypatch):
    source, real, calls = write_runs(tmp_path / "runs.jsonl", [made_run(number) for number in range(12)]), [], []
    real = getattr(passes, step)

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 5:
            raise RecursionError("deep")
        return real(*args, **options)

    monkeypatch.setattr(passes, step, failing)
    found = find_candidates(source, tmp_path / "p.parquet", RUNS, workers=1, progress=False)
    assert found.funnel.stage(stage).dropped == {"raised RecursionError": 1}
    assert found.funnel.stage("patch").left == 11
    found.funnel.check()


@pytest.mark.parametrize(("step", "stage"), [("mask_run", "mask"), ("elide", "budget"), ("_pair", "length")])
def test_a_couple_that_cannot_be_built_is_one_reject(step, stage, tmp_path, monkeypatch):
    source = write_runs(tmp_path / "runs.jsonl", [made_run(number) for number in range(24)])
    calls, real = [], getattr(build, step)

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("odd")
        return real(*args, **options)

    monkeypatch.setattr(build, step, failing)
    found = find_candidates(source, tmp_path / "p.parquet", RUNS, workers=1, progress=False)
    counts = {one.name: one for one in found.funnel}
    assert counts[stage].dropped["raised KeyError"] == 1
    assert counts["mask"].left == counts["budget"].entered
    assert counts["budget"].left == counts["length"].entered
    assert len(PairFile(found.candidates)) == 2 * counts["length"].left > 0
    found.funnel.check()
