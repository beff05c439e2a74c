"""Hydra configs of ContextRL jobs; a package so that verl can find them as pkg://contextrl_verl.config."""
