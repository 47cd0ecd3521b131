"""The tasks of several files and folders together, whole or cut to a number of tokens."""

from collections.abc import Sequence
from typing import Protocol

from embedtrain.config.errors import UserError
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.tasks import Task, cut_tasks

BYTES_PER_TOKEN = 4  # of English, roughly: the same cut for every model, whatever its tokenizer


def read_tasks(paths: Sequence[str]) -> list[Task]:
    """The tasks in all paths."""
    return [task for path in paths for task in find_tasks(path)]


class HasName(Protocol):
    """A task, ours or mteb's."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...


def unlike_names(tasks: Sequence[Task], others: Sequence[HasName] = ()) -> list[Task]:
    """The tasks; raises UserError where two, or one of the others, have one name, which would mix columns."""
    names = [task.name for task in (*tasks, *others)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two test sets are named '{name}'; rename one of their folders or files")
    return list(tasks)


def cut(tasks: Sequence[Task], max_tokens: int | None) -> list[Task]:
    """The tasks, or fixed subsets of about so many tokens in all."""
    return list(tasks) if max_tokens is None else cut_tasks(tasks, max_tokens, count_tokens)


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Roughly the tokens of each text."""
    return [len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts]
