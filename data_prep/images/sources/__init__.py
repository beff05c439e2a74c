"""Where questions about pictures come from. A new kind of source is one small file with the names of ``base.Source``.

:func:`plan_source` cuts a source into payloads, :func:`scan_images` is the work of one, :func:`load_items` puts the
results together.
"""

from data_prep.images.sources.base import SourceOptions, read_columns, read_options
from data_prep.images.sources.scan import SOURCES, describe_source, load_items, plan_source, scan_images

__all__ = [
    "SOURCES", "SourceOptions", "describe_source", "load_items", "plan_source", "read_columns", "read_options",
    "scan_images",
]  # fmt: skip
