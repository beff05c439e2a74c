"""Edited pictures: a proposer says what to change and what the new answer is, an editor does it, checks measure it."""
