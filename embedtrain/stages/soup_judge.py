"""Judges ingredients of a soup, alone and together, with one encoder in memory; finished figures are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

from embedtrain import __version__
from embedtrain.artifacts import hash_json
from embedtrain.average import Tensors, average
from embedtrain.data.rows import Row
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.results import keep_result
from embedtrain.evaluation.tasks import Task
from embedtrain.evaluation.validation import Validated, example_loss, mean_score
from embedtrain.model.checkpoint import set_weights
from embedtrain.model.encoder import Encoder
from embedtrain.model.ingredients import Ingredient
from embedtrain.model.load import open_encoder
from embedtrain.model.prompts import SourcePrompts

CELLS = "validation"


@dataclass(frozen=True)
class Judge:
    """Ingredients by name, in the order given, and where finished figures are kept."""

    ingredients: Mapping[str, Ingredient]
    sources: Mapping[str, SourcePrompts]
    device: str
    folder: Path

    @cached_property
    def encoder(self) -> Encoder:
        """The one encoder that every weight is put into."""
        first = next(iter(self.ingredients.values()))
        return open_encoder(first.folder, device=self.device)

    def holding(self, tensors: Tensors, name: str) -> Validated:
        """The encoder with these weights."""
        set_weights(self.encoder, tensors)
        return Validated(self.encoder, name, self.sources)

    def score(self, numbers: Sequence[int], tasks: Sequence[Task]) -> float:
        """Mean of the primary figures of the uniform average of these ingredients, in points of 100."""
        chosen = [list(self.ingredients.items())[number] for number in numbers]
        tensors = [one.tensors for _, one in chosen]
        together = tensors[0] if len(tensors) == 1 else average(tensors)
        name = " + ".join(name for name, _ in chosen)
        embedder = Remembering(name, lambda: self.holding(together, name))
        made_of = [[one.hash, dict(one.facts)] for _, one in chosen]
        return mean_score(
            [keep_result(self.cell(made_of, task), partial(measure, embedder, task)) for task in tasks]
        )

    def cell(self, made_of: object, task: Task) -> Path:
        """The file of one figure: other weights, prompts, tasks or versions have another."""
        written = {name: asdict(source) for name, source in self.sources.items()}
        identity = hash_json([__version__, made_of, written, task.kind, asdict(task)])
        return self.folder / CELLS / f"{task.name}-{identity[:16]}.json"

    def loss(self, number: int, rows: Sequence[Row], temperature: float) -> float:
        """The InfoNCE loss of one ingredient on a few examples."""
        name, ingredient = list(self.ingredients.items())[number]
        return example_loss(self.holding(ingredient.tensors, name), rows, temperature)
