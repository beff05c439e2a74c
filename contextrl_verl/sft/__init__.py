"""Supervised training on the selections of pairs (the arm ``da_sft``), through verl's own SFT trainer."""
