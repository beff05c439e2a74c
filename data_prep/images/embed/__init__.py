"""Vectors of pictures: ``parts.py`` names the ways and is the work."""
