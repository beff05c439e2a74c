"""Rows for the main task from public data sets: records in ``sets``, the whole of it in ``build``."""
