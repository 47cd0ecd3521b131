"""What was measured of each model: one file a task, kept when the model is gone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from embedtrain.artifacts import hash_json
from embedtrain.config.schema import Machine
from embedtrain.evaluation.results import Result, keep_result
from embedtrain.evaluation.tasks import Task

FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """The measured cells below a folder, on some tasks."""

    folder: Path
    tasks: Sequence[Task]

    def file(self, identity: str, task: Task) -> Path:
        """Where a model's result on a task is; another model, task or format has another file."""
        content = hash_json([FORMAT, task.kind, asdict(task)])[:8]
        return self.folder / f"{identity}-{task.name}-{content}.json"

    def has(self, identity: str) -> bool:
        """Whether the model is measured on all tasks."""
        return all(self.file(identity, task).is_file() for task in self.tasks)

    def results(self, identity: str) -> dict[str, Result]:
        """By task, what was measured of a model that has been."""
        return {task.name: keep_result(self.file(identity, task), unmeasured) for task in self.tasks}

    def measure(self, identity: str, model: Path, machine: Machine) -> None:
        """Measure a model on the tasks that it lacks, as its users load it."""
        import torch

        from embedtrain.evaluation.measure import Remembering, measure
        from embedtrain.model.st import open_sentence_transformer

        if machine.threads:
            torch.set_num_threads(machine.threads)
        opened = partial(open_sentence_transformer, model, device=machine.device, name=identity)
        embedder = Remembering(identity, opened)
        for task in self.tasks:
            keep_result(self.file(identity, task), partial(measure, embedder, task, identity))


def unmeasured() -> Result:
    """Never called: only what is there is read."""
    raise RuntimeError("a cell that was there is gone; run the ablation again")
