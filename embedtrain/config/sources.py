"""Where rows come from, how their texts are written, and in which shares they meet in batches."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.denominator import BlockSwitches
from embedtrain.config.types import AtLeastOne, Bool, Count, Float, Fraction, NotNegative, Str, Strict, Text


class FewShot(Strict):
    """In-context examples before a query: other rows of its source, drawn by (seed, step, row)."""

    min_examples: Count = Field(0, description="fewest examples; the number is drawn evenly")
    max_examples: AtLeastOne = Field(5, description="most examples; the number is drawn evenly")
    example: Str = Field(
        "Instruct: {instruction}\nQuery: {query}\nResponse: {response}",
        description="template of one example; holds {query} and {response}",
    )
    separator: Str = Field("\n\n", description="stands after each example")
    response: Literal["positive", "label"] = Field(
        "positive", description="what answers: the row's first positive, or its class label"
    )
    max_query_tokens: AtLeastOne = Field(256, description="an example's query is cut to so many tokens")
    max_response_tokens: AtLeastOne = Field(256, description="an example's response is cut to so many")
    max_tokens: AtLeastOne = Field(1536, description="no example is added that passes so many in all")

    @model_validator(mode="after")
    def _numbers(self) -> "FewShot":
        if self.min_examples > self.max_examples:
            raise ValueError(f"min_examples {self.min_examples} is above max_examples {self.max_examples}")
        return self


class Source(Strict):
    """Rows of one kind: where they are, how often they come, and how their texts are written."""

    rows: Str = Field(
        description="canonical rows: a folder that `embedtrain convert` wrote, .parquet, .jsonl, .jsonl.gz"
    )
    weight: NotNegative = Field(1.0, description="share of the batches; 0 leaves the source out")
    max_rows: AtLeastOne | None = Field(
        None, description="use so many rows, drawn with the run's seed; absent means all"
    )
    instruction: Text = Field("", description="fills {instruction}; a row's own instruction wins")
    query: Str | None = Field(None, description="template of its queries; overrides the text section")
    document: Str | None = Field(None, description="template of its documents; overrides the text section")
    symmetric: Bool = Field(False, description="documents are formatted as queries too (STS, paraphrase)")
    instructed_documents_fraction: Fraction = Field(
        0.0, description="share of the documents that are formatted as queries, chosen by seed and text"
    )
    few_shot: FewShot | None = Field(
        None, description="examples in front of queries; the query template holds {examples}"
    )
    tasks: tuple[Str, ...] = Field(
        (), description="mteb tasks whose prompts the export names after this source's"
    )
    batch_size: Annotated[AtLeastOne, Field(ge=2)] | None = Field(
        None, description="overrides the stage's, where a batch holds one source"
    )
    num_negatives: Count | None = Field(None, description="overrides the stage's")
    blocks: BlockSwitches | None = Field(
        None, description="this source's own switches of what counts as a negative; each wins over a term's"
    )
    max_query_tokens: AtLeastOne | None = Field(None, description="overrides the text section")
    max_document_tokens: AtLeastOne | None = Field(None, description="overrides the text section")

    @model_validator(mode="after")
    def _one_way_to_format(self) -> "Source":
        if self.symmetric and self.instructed_documents_fraction > 0:
            raise ValueError(
                "symmetric formats every document as a query; remove instructed_documents_fraction"
            )
        if self.symmetric and self.document is not None:
            raise ValueError("symmetric formats all documents as queries; remove the document template")
        return self


class OneSource(Strict):
    """Every global batch holds rows of one source."""

    kind: Literal["one_source"]


class Blended(Strict):
    """Every global batch holds rows of all sources, in their shares."""

    kind: Literal["blended"]


class SemiHomogeneous(Strict):
    """A share of every global batch comes from one source, the rest from all in their shares (KaLM)."""

    kind: Literal["semi_homogeneous"]
    main_fraction: Annotated[Float, Field(gt=0, lt=1)] = Field(description="share of the batch's main source")


class Mixture(Strict):
    """Which rows meet in a global batch; the share of a source is weight x rows^size_exponent."""

    batches: Annotated[OneSource | Blended | SemiHomogeneous, Field(discriminator="kind")] = Field(
        default_factory=lambda: OneSource(kind="one_source"),
        description="whether a batch holds one source or several",
    )
    size_exponent: NotNegative = Field(
        0.0, description="0: weights alone; 1: in proportion to rows; between: tempered"
    )
    unique_texts: Bool = Field(
        True,
        description="no text twice among a batch's queries and positives; a row that repeats one is swapped",
    )
