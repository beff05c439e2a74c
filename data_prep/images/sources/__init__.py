"""Where questions about pictures come from. A new kind of source is one small file with the names of ``types.Source``.

:func:`plan_source` cuts a source into payloads, :func:`scan_images` is the work of one, :func:`load_items` puts the
results together.
"""

from data_prep.images.sources.distinct import load_items
from data_prep.images.sources.options import SourceOptions, read_columns, read_options
from data_prep.images.sources.plan import SOURCES, describe_source, plan_source
from data_prep.images.sources.scan import scan_images

__all__ = [
    "SOURCES",
    "SourceOptions",
    "describe_source",
    "load_items",
    "plan_source",
    "read_columns",
    "read_options",
    "scan_images",
]
