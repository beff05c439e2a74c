"""Which questions get an edited picture: drawn from a seed, spread over templates and answers, few of one picture."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.common.funnel import Stage
from data_prep.common.seeded import draw
from data_prep.images.item import VqaItem, read_items


def choose_items(
    paths: Sequence[Path],
    count: int,
    template: Callable[[VqaItem], str | None],
    stage: Stage,
    *,
    per_picture: int = 1,
    seed: int = 1,
) -> list[VqaItem]:
    """Draw items; two passes over the files, so that only the chosen ones are held.

    Every pair of template and answer gives one in turn, as long as it has some: then no answer and no template goes
    with edited pictures more than another.

    Args:
        paths: files of items.
        count: at most so many.
        template: name of a question's kind; None for a question that cannot be edited for.
        stage: counts what is kept and why the rest is not.
        per_picture: edits of one picture at most.

    Returns:
        The items in the order of the files.
    """
    groups: dict[tuple[str, str], list[tuple[bytes, int, str]]] = defaultdict(list)
    for index, item in enumerate(read_items(paths)):
        kind = template(item)
        if kind is None:
            stage.drop("question not understood", {"item_id": item.item_id, "question": item.question})
        else:
            rank = draw(seed, "edit", item.item_id)
            groups[kind, item.answer.casefold().strip()].append((rank, index, item.image))
    total = sum(map(len, groups.values()))
    # Which group gives first must not follow from its name either, if there are more groups than edits.
    turns = deque(deque(sorted(groups[name])) for name in sorted(groups, key=lambda name: draw(seed, "edit", *name)))
    uses: Counter[str] = Counter()
    chosen: set[int] = set()
    full = 0
    while turns and len(chosen) < count:
        group = turns.popleft()
        while group:
            _, index, image = group.popleft()
            if uses[image] < per_picture:
                uses[image] += 1
                chosen.add(index)
                turns.append(group)
                break
            full += 1
    if full:
        stage.drop("its picture is edited for another question", count=full)
    if rest := total - full - len(chosen):
        stage.drop("not drawn", count=rest)
    stage.keep(len(chosen))
    return [item for index, item in enumerate(read_items(paths)) if index in chosen]
