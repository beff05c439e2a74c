"""Calls to a paid or shared endpoint: key, retries, spending cap, cache. Used by the judge; fits any other caller."""
