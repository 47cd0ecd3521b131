"""What is minimised: a weighted sum of terms, each seen through a view of dimensions."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.types import AtLeastOne, Bool, Float, Positive, Strict


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


class InfoNCE(Strict):
    """InfoNCE of each query over its positive and every candidate that is not hidden."""

    kind: Literal["infonce"]
    weight: Positive = Field(1.0, description="factor of this term in the objective")
    temperature: Annotated[Float, Field(gt=0)] = Field(
        0.02, description="cosines are divided by it; typical 0.01 to 0.05"
    )
    in_batch_positives: Bool = Field(True, description="other queries' positives count as negatives")
    own_negatives: Bool = Field(True, description="the row's own hard negatives count")
    in_batch_negatives: Bool = Field(True, description="other queries' hard negatives count as negatives")
    mask_same_text: Bool = Field(
        True, description="hide a candidate whose text is the query's or one of its positives"
    )


Term = InfoNCE  # a union tagged on `kind` as soon as there is a second term


class Objective(Strict):
    """objective = sum of weight x term, each term taken at the dims of the view."""

    terms: tuple[Term, ...] = Field(description="the terms to add", min_length=1)
    matryoshka: Matryoshka | None = Field(
        None, description="train these dims, and no others; absent means all dims of the vector"
    )
