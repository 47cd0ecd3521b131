"""Measures embedders on held-out data, by mteb's protocols."""
