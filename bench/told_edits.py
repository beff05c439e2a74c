"""Whether a random forest tells pictures of easy_vqa from their edits by rule, whole couples held out.

    python -m bench.told_edits [--couples 2000]

By the audit's forensic features, and by those and what they do not see: where the shape lies, and how its edge is
rounded. "one" is the share of pictures told right; "of two" the share of couples whose edit scores as the likelier one.
"""

from __future__ import annotations

import argparse
import asyncio
import random

import easy_vqa
import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import EasyVqaRules
from data_prep.images.forensics import picture_features
from data_prep.images.item import VqaItem


def shape_features(image: Image.Image) -> list[float]:
    """Where the shape of a flat picture lies, and how the pixels of its edge depart from a mixture of two colours."""
    pixels = np.asarray(image).reshape(-1, 3).astype(float)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    ground, solid = values[counts.argmax()], values[np.abs(values - values[counts.argmax()]).sum(axis=1).argmax()]
    mixed, towards = np.abs(pixels - ground).max(axis=1) > 3, solid - ground
    rows, columns = np.nonzero(mixed.reshape(image.height, image.width))
    ends = [columns.min(), image.width - 1 - columns.max(), rows.min(), image.height - 1 - rows.max()]
    apart = pixels[mixed] - ground
    share = apart @ towards / max(towards @ towards, 1e-9)
    beside = np.abs(apart - share[:, None] * towards).max(axis=1)
    quarters, sixteenths = np.abs(share * 4 - np.round(share * 4)), apart - np.round(share * 16)[:, None] / 16 * towards
    odd = (pixels[mixed] % 2).mean()
    return [
        min(ends), *ends, sum(end == 0 for end in ends), image.width - ends[0] - ends[1], image.height - sum(ends[2:]),
        mixed.sum(), beside.mean(), beside.max(), quarters.mean(), quarters.max(), sixteenths.mean(), sixteenths.min(),
        sixteenths.max(), ground.mean(), *ground, odd,
    ]  # fmt: skip


def couples(count: int) -> tuple[np.ndarray, int, np.ndarray]:
    """(2 * count, features) of originals and edits in turn, how many are forensic, and (count,) operations."""
    questions, paths = list(zip(*easy_vqa.get_train_questions(), strict=True)), easy_vqa.get_train_image_paths()
    random.Random(0).shuffle(questions)
    rules, editor, rows, operations = EasyVqaRules(), ProceduralEditor(), [], []
    one_of_each = {picture: (question, answer) for question, answer, picture in reversed(questions)}
    for number, (picture, asked) in enumerate(list(one_of_each.items())[:count]):
        image = Image.open(paths[picture]).convert("RGB")
        plan = asyncio.run(rules.propose(VqaItem(f"q{number}", str(picture), *asked, "shapes", "easy_vqa"), image, 1))
        for shown in (image, asyncio.run(editor.edit(image, plan, 1))):
            forensic = list(picture_features(shown).values())
            rows.append(forensic + shape_features(shown))
        operations.append(plan.operation)
    return np.array(rows), len(forensic), np.array(operations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--couples", type=int, default=2000)
    rows, forensic, operations = couples(parser.parse_args().couples)
    labels, groups = np.tile([0, 1], len(operations)), np.repeat(np.arange(len(operations)), 2)
    for name, features in (("forensic features", rows[:, :forensic]), ("and shape features", rows)):
        forest = RandomForestClassifier(300, min_samples_leaf=5, random_state=0)
        folds = {"groups": groups, "cv": GroupKFold(5), "method": "predict_proba"}
        scores = cross_val_predict(forest, features, labels, **folds)[:, 1].reshape(-1, 2)
        for operation in ("all", *sorted(set(operations))):
            first, second = scores[(operations == operation) | (operation == "all")].T
            one = ((first < 0.5).mean() + (second >= 0.5).mean()) / 2
            two = (second > first).mean() + (second == first).mean() / 2
            print(f"{name:18} {operation:9} {len(first):5} couples: one {one:.1%}, of two {two:.1%}", flush=True)


if __name__ == "__main__":
    main()
