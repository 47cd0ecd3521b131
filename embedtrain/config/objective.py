"""What is minimised: a weighted sum of terms, each seen through a view of dimensions."""

from pydantic import Field

from embedtrain.config.terms import Matryoshka, Term
from embedtrain.config.types import Strict


class Objective(Strict):
    """objective = sum of weight x term, each term taken at the dims of the view."""

    terms: tuple[Term, ...] = Field(description="the terms to add", min_length=1)
    matryoshka: Matryoshka | None = Field(
        None, description="train these dims, and no others; absent means all dims of the vector"
    )
