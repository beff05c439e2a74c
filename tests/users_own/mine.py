"""A user's file: a data set with a column of its own, and reward functions."""

from verl.utils.dataset.rl_dataset import RLHFDataset

from contextrl_verl.grpo.dataset import MixedTaskDataset


class Mine(RLHFDataset):
    """verl's, with a hint beside every row and a source that only the user's reward knows."""

    def __getitem__(self, item):
        row = super().__getitem__(item)
        row["hint"] = f"row {item}"
        row["data_source"] = "mine/copy"
        return row


class MineWithPairs(MixedTaskDataset, Mine):
    """The two lines that docs/own_job.md asks for."""


async def score(data_source, solution_str, ground_truth, extra_info=None):
    """Differs within most groups of a random model's replies, and never for the question whose answer is 0."""
    assert data_source == "mine/copy", data_source
    right = float(ground_truth != "0" and len(solution_str) % 4 == 0)
    return {"score": right, "acc": right, "length": len(solution_str)}


def plain_score(data_source, solution_str, ground_truth, extra_info=None):
    """The same for every reply."""
    return 0.25


def broken(data_source, solution_str, ground_truth, extra_info=None):
    """Fails on every reply."""
    return undefined_name  # noqa: F821
