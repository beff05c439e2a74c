"""Checkpoints to users: find the best one, merge it to Hugging Face format, write its model card, prune the others."""
