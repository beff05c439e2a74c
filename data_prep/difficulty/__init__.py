"""Difficulty filter: keep the pairs that a model solves sometimes, neither always nor never (paper: 2 to 5 of 8)."""
