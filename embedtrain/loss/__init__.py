"""Blocks, masks, terms, views and the objective: pure functions of gathered vectors."""
