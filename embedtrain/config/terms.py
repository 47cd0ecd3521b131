"""The terms of an objective: one class a kind, told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.denominator import SAME_TEXT, AnyMixing, Focal, Mask
from embedtrain.config.types import AtLeastOne, Bool, Float, NotNegative, Positive, Str, Strict


class Matryoshka(Strict):
    """Truncate the raw pooled vector to each dim, normalise, and sum the weighted losses."""

    dims: tuple[AtLeastOne, ...] = Field(description="dims to train, for example [576, 256, 64]")
    weights: tuple[Positive, ...] | None = Field(
        None, description="one weight a dim; absent means 1 for each"
    )
    normalize_weights: Bool = Field(False, description="divide the weights by their sum (KaLM does not)")

    @model_validator(mode="after")
    def _dims_and_weights(self) -> "Matryoshka":
        if not self.dims:
            raise ValueError("dims is empty; name at least one dim")
        if sorted(set(self.dims), reverse=True) != list(self.dims):
            raise ValueError(f"dims {list(self.dims)}: name each dim once, the largest first")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ValueError(f"{len(self.dims)} dims and {len(self.weights)} weights; give one weight a dim")
        return self


class Learned(Strict):
    """A number that training changes, kept between its bounds."""

    initial: Float = Field(description="where it starts")
    minimum: Float = Field(description="lower bound")
    maximum: Float = Field(description="upper bound")

    @model_validator(mode="after")
    def _in_order(self) -> "Learned":
        if not self.minimum < self.initial < self.maximum:
            raise ValueError(
                f"initial {self.initial:g} is not between minimum {self.minimum:g} "
                f"and maximum {self.maximum:g}"
            )
        return self


class LearnedTemperature(Learned):
    """A learned temperature; all three are above 0."""

    initial: Positive = Field(0.05, description="where it starts")
    minimum: Positive = Field(0.01, description="lower bound")
    maximum: Positive = Field(0.2, description="upper bound")


Temperature = Positive | LearnedTemperature


class AnyTerm(Strict):
    """What every term has."""

    weight: Positive = Field(1.0, description="factor of this term in the objective")
    sources: tuple[Str, ...] | None = Field(
        None, description="batches of these sources only; absent means all"
    )
    matryoshka: Matryoshka | None = Field(
        None, description="this term's own view; absent means the objective's"
    )


class InfoNCE(AnyTerm):
    """-log p of each positive among itself and every negative that is let in and not hidden."""

    kind: Literal["infonce"]
    temperature: Temperature = Field(0.02, description="cosines are divided by it; typical 0.01 to 0.05")
    own_negatives: Bool = Field(True, description="the row's own hard negatives count")
    in_batch_positives: Bool = Field(True, description="other queries' positives count as negatives")
    in_batch_negatives: Bool = Field(True, description="other queries' hard negatives count as negatives")
    query_query: Bool = Field(False, description="the query against other queries")
    document_document: Bool = Field(False, description="the positive against other rows' documents")
    document_query: Bool = Field(False, description="the positive against other queries")
    symmetric: Bool = Field(
        False, description="mean of both directions: query to documents, positive to queries"
    )
    masks: tuple[Mask, ...] = Field((SAME_TEXT,), description="what is hidden from the denominator")
    focal: Focal | None = Field(None, description="look at hard queries more; absent means all alike")
    hardness: NotNegative = Field(
        0.0, description="alpha: own hard negatives' logits + alpha x cosine, no gradient (EmbeddingGemma: 5)"
    )
    mixing: tuple[AnyMixing, ...] = Field((), description="synthetic negatives made of real ones")

    @model_validator(mode="after")
    def _one_way_back(self) -> "InfoNCE":
        if self.symmetric and self.document_query:
            raise ValueError(
                "symmetric already sets the positive against the queries; leave document_query off"
            )
        return self


Normalization = Literal["none", "min_max", "z_score"]


class SoftLabels(AnyTerm):
    """What terms that learn a teacher's scores of the row's own candidates have."""

    teacher: Str = Field(
        "scores", description="`scores`: those in the rows; `vectors`: cosines of the stage's teacher"
    )
    teacher_normalization: Normalization = Field(
        "none", description="of each row's teacher scores, before the temperature"
    )


class Distributions(SoftLabels):
    """What terms that compare the softmax of teacher and student have."""

    teacher_temperature: Positive = Field(1.0, description="teacher scores are divided by it")
    student_temperature: Temperature = Field(0.02, description="cosines are divided by it")


class DistillKL(Distributions):
    """KL(softmax(t / teacher_temperature) || softmax(s / student_temperature)); no tau^2 factor."""

    kind: Literal["distill_kl"]


class DistillCE(Distributions):
    """Cross-entropy of softmax(s / student_temperature) under softmax(t / teacher_temperature)."""

    kind: Literal["distill_ce"]


class MarginMSE(SoftLabels):
    """((s+ - s-) / temperature - (t+ - t-))^2 for each pair of a positive and an own hard negative."""

    kind: Literal["margin_mse"]
    temperature: Positive = Field(1.0, description="the student's margin is divided by it")


class CoSENT(AnyTerm):
    """log(1 + sum of exp((s_j - s_i) / temperature) over pairs with grade i above grade j)."""

    kind: Literal["cosent"]
    temperature: Positive = Field(0.05, description="cosines are divided by it")


class Sigmoid(AnyTerm):
    """-log sigmoid(y (s / temperature + bias)) of every pair, y = 1 for positives, else -1 (SigLIP)."""

    kind: Literal["sigmoid"]
    temperature: Temperature = Field(
        LearnedTemperature(initial=0.1, minimum=0.01, maximum=1.0), description="cosines are divided by it"
    )
    bias: Float | Learned = Field(
        Learned(initial=-10.0, minimum=-30.0, maximum=10.0), description="added to the scaled cosine"
    )
    own_negatives: Bool = Field(True, description="the row's own hard negatives count")
    in_batch_positives: Bool = Field(True, description="other queries' positives count as negatives")
    in_batch_negatives: Bool = Field(True, description="other queries' hard negatives count as negatives")
    masks: tuple[Mask, ...] = Field((SAME_TEXT,), description="what is left out of the sum")


class EmbedDistill(AnyTerm):
    """Distance of each vector to the teacher's vector of the same text (LEAF, EmbeddingGemma)."""

    kind: Literal["embed_distill"]
    distance: Literal["cosine", "squared_l2"] = Field("cosine", description="1 - cosine, or |y - t|^2")
    projection: Bool = Field(False, description="learn a biased linear map to the teacher's dims")
    normalize: Bool = Field(
        True, description="with squared_l2: normalise both first, as where the teacher normalises"
    )
    queries: Bool = Field(True, description="learn the queries' vectors")
    positives: Bool = Field(True, description="learn the positives' vectors")
    negatives: Bool = Field(True, description="learn the hard negatives' vectors")

    @model_validator(mode="after")
    def _some_texts(self) -> "EmbedDistill":
        if not (self.queries or self.positives or self.negatives):
            raise ValueError("queries, positives and negatives are all off; nothing is learned")
        return self


class Spread(AnyTerm):
    """Mean of squared cosines over all pairs of different texts of a side (GOR, second moment)."""

    kind: Literal["spread"]
    queries: Bool = Field(True, description="spread the queries")
    documents: Bool = Field(True, description="spread the documents")

    @model_validator(mode="after")
    def _some_side(self) -> "Spread":
        if not (self.queries or self.documents):
            raise ValueError("queries and documents are both off; nothing is spread")
        return self


Term = Annotated[
    InfoNCE | DistillKL | DistillCE | MarginMSE | CoSENT | Sigmoid | EmbedDistill | Spread,
    Field(discriminator="kind"),
]
