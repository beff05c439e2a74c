"""Questions and pictures of easy_vqa as items, drawn from a seed."""

from __future__ import annotations

import random
from functools import lru_cache

import easy_vqa
from PIL import Image

from data_prep.images.item import VqaItem


@lru_cache(maxsize=1)
def _questions():
    rows = list(zip(*easy_vqa.get_train_questions(), strict=True))
    return rows, easy_vqa.get_train_image_paths()


def drawn(count: int, seed: int = 0) -> list[tuple[VqaItem, Image.Image]]:
    """Questions of different pictures."""
    rows, paths = _questions()
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    seen, found = set(), []
    for index in order:
        question, answer, picture = rows[index]
        if picture in seen:
            continue
        seen.add(picture)
        with Image.open(paths[picture]) as image:
            found.append(
                (VqaItem(f"q{index}", str(picture), question, answer, "shapes", "easy_vqa"), image.convert("RGB"))
            )
        if len(found) == count:
            break
    return found
