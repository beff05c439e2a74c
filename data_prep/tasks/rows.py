"""The columns that all our rows for verl's trainer have in common.

The trainer joins files of rows into one table, and a struct must then have the same fields in all of them.
"""

from __future__ import annotations

import pyarrow as pa

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
# What does not fit a kind of row is null: run_id for pictures; picture, item and tolerance for runs; the last five for
# everything but issues. instance is JSON: what an agent loop needs to set up and to test a repository.
EXTRA_INFO = pa.struct(
    [
        ("index", pa.int64()),
        ("run_id", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),
        ("question", pa.string()),
        ("picture", pa.string()),
        ("item", pa.string()),
        ("tolerance", pa.float64()),
        ("num_options", pa.int64()),
        ("instance_id", pa.string()),
        ("repo", pa.string()),
        ("base_commit", pa.string()),
        ("image_name", pa.string()),
        ("instance", pa.string()),
    ]
)
COLUMNS = [
    ("data_source", pa.string()),
    ("prompt", pa.list_(_MESSAGE)),
    ("ability", pa.string()),
    ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
    ("extra_info", EXTRA_INFO),
]
AGENT = ("agent_name", pa.string())
IMAGES = ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
