"""Shortcut audit of contrastive pairs: can the label be told without the evidence? See ``run.audit``."""
