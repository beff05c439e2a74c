"""Verification of contrastive pairs: rules always, a language model on request, a person for what stays uncertain."""
