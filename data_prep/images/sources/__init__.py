"""Where questions about pictures come from; what a source is says ``base.py``."""
