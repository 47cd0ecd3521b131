"""Recipes of training sets: `python -m data_recipes list`, `python -m data_recipes build NAME`."""
