"""The stages that find negatives: mine, score, select."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.retrievers import (
    Approximate,
    EncoderJudge,
    Ensemble,
    Fusion,
    ReciprocalRank,
    Retriever,
    Teacher,
)
from embedtrain.config.rules import AnyRule, Choice, PercentOfPositive, Top
from embedtrain.config.stage import Stage
from embedtrain.config.types import STAGE_NAME, AtLeastOne, Bool, Str


class Mine(Stage):
    """The best candidates for every row, by one retriever or several."""

    kind: Literal["mine"]
    from_: Str | None = Field(
        None,
        alias="from",
        description="`base` or an earlier train, distil or soup stage; short for a retriever of kind encoder",
    )
    retrievers: tuple[Retriever, ...] = Field((), description="what finds candidates, beside `from`")
    fusion: Fusion = Field(
        default_factory=lambda: ReciprocalRank(kind="rrf"), description="how several lists become one"
    )
    rows: Str | None = Field(
        None, description="an earlier filter or select stage; absent means the sources as they are"
    )
    sources: tuple[Str, ...] | None = Field(
        None, description="names of the sources to mine; absent means all that have a weight"
    )
    top_k: AtLeastOne = Field(100, description="candidates a retriever finds for a row")
    max_rows: AtLeastOne | None = Field(
        None, description="rows a source to mine for, drawn with the seed; absent means all"
    )
    own_texts: Bool = Field(True, description="search the source's own positives and negatives")
    corpus: tuple[Str, ...] = Field(
        (), description="more documents to search for every source: files or folders of texts or rows"
    )
    corpus_size: AtLeastOne | None = Field(
        None, description="documents a source to search; the mined rows' own texts always count"
    )
    vector_precision: Literal["float32", "float16"] = Field(
        "float32", description="of the stored vectors; float16 halves the disk"
    )
    approximate: Approximate | None = Field(
        None, description="an approximate index for large corpora; absent means exact search"
    )

    @model_validator(mode="after")
    def _something_retrieves(self) -> "Mine":
        if self.from_ is None and not self.retrievers:
            raise ValueError("no retriever; give `from`, or retrievers")
        if not self.own_texts and not self.corpus and not all(r.kind == "rows" for r in self.judges):
            raise ValueError("nothing to search: own_texts is false and there is no corpus")
        if any(r.kind == "endpoint" and r.gives == "scores" for r in self.retrievers):
            raise ValueError("an endpoint that gives scores cannot retrieve; expected `gives: vectors`")
        return self

    @property
    def judges(self) -> tuple[Retriever, ...]:
        """All retrievers, that of `from` first."""
        own = (
            ()
            if self.from_ is None
            else (EncoderJudge.model_validate({"kind": "encoder", "from": self.from_}),)
        )
        return (*own, *self.retrievers)


class Score(Stage):
    """Teacher scores of mined candidates and of the rows' positives, a column a teacher."""

    kind: Literal["score"]
    candidates: Str = Field(description="an earlier mine stage")
    teachers: tuple[Teacher, ...] = Field(min_length=1, description="what scores")
    ensembles: tuple[Ensemble, ...] = Field((), description="more columns, made of several")
    first_candidates: AtLeastOne | None = Field(
        None, description="score only so many of a row's best candidates; absent means all"
    )


class Select(Stage):
    """Mined candidates and rules into rows with hard negatives."""

    kind: Literal["select"]
    candidates: Str = Field(description="an earlier mine stage")
    scores: Str | None = Field(None, description="an earlier score stage on these candidates")
    judge: Annotated[Str, Field(pattern=STAGE_NAME)] | None = Field(
        None, description="column that the rules read; absent means the first retriever's"
    )
    rules: tuple[AnyRule, ...] = Field(
        default_factory=lambda: (PercentOfPositive(kind="perc_pos"),),
        description="a candidate must pass all of them; [] keeps every one (naive)",
    )
    first_rank: AtLeastOne = Field(1, description="best rank that may be a negative, counted from 1")
    last_rank: AtLeastOne = Field(100, description="worst rank that may be a negative")
    num_negatives: AtLeastOne = Field(
        7, description="negatives stored a row; training draws from them anew each time it sees the row"
    )
    choice: Choice = Field(
        default_factory=lambda: Top(kind="top"), description="which are taken where more than these stay"
    )
    fill: Literal["nothing", "random"] = Field(
        "nothing", description="where fewer stay: leave it, or add random documents, never a positive"
    )
    require_positive_in_top: AtLeastOne | None = Field(
        None, description="drop a row whose positive ranks below this (KaLM's consistency filter)"
    )
    soft_labels: Annotated[Str, Field(pattern=STAGE_NAME)] | None = Field(
        None, description="column written into the rows as teacher scores; absent means the judge's"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Select":
        if self.first_rank > self.last_rank:
            raise ValueError(f"first_rank {self.first_rank} is above last_rank {self.last_rank}")
        if self.choice.kind == "sample" and self.choice.from_top < self.num_negatives:
            drawn = f"choice draws from the best {self.choice.from_top}"
            raise ValueError(f"{drawn}, and num_negatives is {self.num_negatives}")
        if self.fill == "random" and self.soft_labels:
            raise ValueError("random documents have no teacher score; remove fill or soft_labels")
        return self
