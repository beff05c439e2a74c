"""A demonstration that needs no download: a tiny model, and evidence pairs it can learn to tell apart in minutes."""
