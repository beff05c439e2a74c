"""ContextRL for verl: contrastive context selection as an auxiliary objective next to GRPO."""

__version__ = "0.2.0"
