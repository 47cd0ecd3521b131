"""Rows and the checks on them. No torch."""
