"""Turns what a task is made of into rows: pure functions of checked examples; `tasks.TASKS` names them."""
