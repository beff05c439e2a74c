"""Contrastive pairs: the format, its files, the prompt that is made of one. Needs neither verl nor torch."""

from contextrl_verl.pairs.schema import (
    ARROW_SCHEMA,
    Context,
    ContrastivePair,
    ImageRef,
    Message,
    PairFormatError,
    parse_pair,
)

__all__ = ["ARROW_SCHEMA", "Context", "ContrastivePair", "ImageRef", "Message", "PairFormatError", "parse_pair"]
