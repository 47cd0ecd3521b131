"""What stands in a term's denominator: masks, focal weights, mixed negatives and a source's switches."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.types import AtLeastOne, Bool, Float, Positive, Str, Strict


class SameText(Strict):
    """Hide what has the text of the query or of one of its positives."""

    kind: Literal["same_text"]


class SameLabel(Strict):
    """Hide what has the query's class label."""

    kind: Literal["same_label"]


Judge = Literal["student", "teacher"]


class AboveMargin(Strict):
    """Hide what scores above the positive's score + margin (Qwen3-Embedding: 0.1; negative is stricter)."""

    kind: Literal["above_margin"]
    margin: Float = Field(0.1, description="distance above the positive's cosine; may be negative")
    judge: Judge = Field("student", description="whose cosines: the model's own, or the teacher vectors'")


class AboveFraction(Strict):
    """Hide what scores above the positive's score s - (1 - fraction) x |s| (GISTEmbed, relative margin)."""

    kind: Literal["above_fraction"]
    fraction: Positive = Field(0.95, description="share of the positive's cosine")
    judge: Judge = Field("student", description="whose cosines: the model's own, or the teacher vectors'")


class TeacherRelevant(Strict):
    """Hide the row's own negatives that a teacher scores at or above the threshold."""

    kind: Literal["teacher_relevant"]
    teacher: Str = Field("scores", description="whose scores: `scores` are those in the rows")
    threshold: Float = Field(description="least teacher score of a relevant document")


Mask = Annotated[
    SameText | SameLabel | AboveMargin | AboveFraction | TeacherRelevant, Field(discriminator="kind")
]
SAME_TEXT = SameText(kind="same_text")


class Focal(Strict):
    """Weigh each query by (1 - p)^gamma, p the positive's probability (KaLM-Embedding-V2)."""

    gamma: Positive = Field(0.5, description="0.5 in KaLM-V2; larger looks away from easy queries more")
    detach: Bool = Field(True, description="no gradient through the weight")
    normalize: Bool = Field(False, description="divide by the sum of the weights, not by the queries")


class Mixing(Strict):
    """What every mixing has."""

    parents: Literal["own_negatives", "hardest"] = Field(
        "own_negatives", description="the row's own hard negatives, or the hardest of the batch"
    )
    num_parents: AtLeastOne = Field(8, description="how many of the batch, with parents: hardest")
    shared: Bool = Field(False, description="every query's mixed negatives stand against every query")
    detach: Bool = Field(False, description="no gradient through the mixed vectors")

    @model_validator(mode="after")
    def _own_or_shared(self) -> "Mixing":
        if self.shared and self.parents == "hardest":
            raise ValueError("shared needs parents: own_negatives; only they are known for every query")
        return self


class PairMixing(Mixing):
    """lambda n_j + (1 - lambda) n_k, normalised; lambda ~ Beta(alpha, beta) (KaLM-Embedding-V2)."""

    kind: Literal["pair"]
    count: AtLeastOne = Field(1, description="mixed negatives a query")
    alpha: Positive = Field(2.0, description="first parameter of Beta")
    beta: Positive = Field(2.0, description="second parameter of Beta")


class ListMixing(Mixing):
    """Sum of softmax(s(q, n_m) / temperature) n_m, normalised: one a query (form: embedtrain's choice)."""

    kind: Literal["list"]
    temperature: Positive = Field(0.05, description="small looks at the hardest parent only")


AnyMixing = Annotated[PairMixing | ListMixing, Field(discriminator="kind")]


class BlockSwitches(Strict):
    """A source's own switches; each wins over that of every term that has it."""

    own_negatives: Bool | None = Field(None, description="the row's own hard negatives count")
    in_batch_positives: Bool | None = Field(None, description="other queries' positives count")
    in_batch_negatives: Bool | None = Field(None, description="other queries' hard negatives count")
    query_query: Bool | None = Field(None, description="the query against other queries")
    document_document: Bool | None = Field(None, description="the positive against other documents")
    document_query: Bool | None = Field(None, description="the positive against other queries")
    symmetric: Bool | None = Field(None, description="both directions")
