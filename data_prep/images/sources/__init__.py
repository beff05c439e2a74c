"""Where questions about pictures come from; what a source is says ``base.py``.

:func:`plan_source` cuts one into payloads, :func:`scan_images` is the work of one, :func:`distinct` puts the results
together.
"""

from data_prep.images.sources.base import SourceOptions
from data_prep.images.sources.scan import SOURCES, distinct, plan_source, scan_images

__all__ = ["SOURCES", "SourceOptions", "distinct", "plan_source", "scan_images"]
