"""What finds candidates (mine) and what scores them (score): one class a kind, told apart by `kind`."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.types import (
    ADDRESS,
    SHA256,
    STAGE_NAME,
    AtLeastOne,
    Bool,
    Count,
    Float,
    NotNegative,
    Positive,
    Str,
    Strict,
    Text,
)

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
ColumnName = Annotated[Str, Field(pattern=STAGE_NAME)]


class Judge(Strict):
    """What has scores; each kind has a column of its own in the tables and pages."""

    name: ColumnName | None = Field(None, description="name of its column; absent means its kind")

    @property
    def column(self) -> str:
        """Name of its column."""
        return self.name or str(getattr(self, "kind"))  # noqa: B009 - the kind is each class's own


class EncoderJudge(Judge):
    """An encoder of this run; cosine, with each source's own templates."""

    kind: Literal["encoder"]
    from_: Str = Field(alias="from", description="`base` or an earlier train, distil or soup stage")

    @property
    def column(self) -> str:
        """Name of its column: that of the stage."""
        return self.name or self.from_


class Pinned(Judge):
    """A model from outside the run."""

    model: Str = Field(description="a folder, hub id or `pip:` package")
    revision: Str | None = Field(None, description="hub revision; pin it")
    sha256: Annotated[Str, Field(pattern=SHA256)] | None = Field(
        None, description="expected SHA-256 of the package file"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="texts are cut to so many tokens; absent means the model's own limit"
    )


class ModelJudge(Pinned):
    """A sentence-transformers model, or an earlier export stage; cosine, with the model's own prompts."""

    kind: Literal["model"]


class BM25Judge(Judge):
    """Lucene's BM25 over the words (bm25s)."""

    kind: Literal["bm25"]
    k1: NotNegative = Field(1.5, description="how soon a repeated word stops counting")
    b: Annotated[Float, Field(ge=0, le=1)] = Field(0.75, description="how much long texts are discounted")
    stopwords: Literal["en"] | tuple[Str, ...] = Field(
        "en", description="words left out: `en`, or a list of your own, [] for none"
    )


class RowsJudge(Judge):
    """The rows themselves: their stored negatives are the candidates, their stored scores the scores."""

    kind: Literal["rows"]


class EndpointJudge(Judge):
    """A model behind HTTP: an OpenAI, TEI or vLLM server."""

    kind: Literal["endpoint"]
    url: Annotated[Str, Field(pattern=ADDRESS)] = Field(
        description="up to the version, for example http://localhost:8080 or https://api.openai.com/v1"
    )
    protocol: Literal["openai", "tei", "vllm"] = Field(description="what the server speaks")
    gives: Literal["vectors", "scores"] = Field(
        "vectors", description="embeddings, compared by cosine, or a reranker's scores of pairs"
    )
    model: Str | None = Field(None, description="name of the model in the requests; openai and vllm need it")
    query_prompt: Text = Field("", description="written before each query")
    document_prompt: Text = Field("", description="written before each document")
    key_variable: Str | None = Field(
        None, description="environment variable that holds the key, in capitals; the key is never logged"
    )
    requests_per_second: Positive | None = Field(None, description="at most so many; absent means no limit")
    texts_per_request: AtLeastOne = Field(32, description="texts, or documents of a query, in a request")
    parallel_requests: AtLeastOne = Field(4, description="requests under way at a time")
    timeout_seconds: Positive = Field(60.0, description="patience with one request")
    max_retries: Count = Field(6, description="tries after 429, 5xx and lost connections, waiting longer")

    @model_validator(mode="after")
    def _key_is_elsewhere(self) -> "EndpointJudge":
        if self.key_variable is not None and not VARIABLE.fullmatch(self.key_variable):
            raise ValueError(
                "key_variable is not the name of an environment variable (capitals, digits and '_'); a key "
                "itself never stands in a file"
            )
        return self

    @model_validator(mode="after")
    def _model_is_named(self) -> "EndpointJudge":
        if self.protocol != "tei" and self.model is None:
            raise ValueError(f"protocol {self.protocol} needs model, the model's name in the requests")
        if self.protocol == "openai" and self.gives == "scores":
            raise ValueError("protocol openai gives vectors only; expected tei or vllm for scores")
        return self


class CrossEncoderJudge(Pinned):
    """A sentence-transformers CrossEncoder (reranker) with one output."""

    kind: Literal["cross_encoder"]
    scale: Literal["logit", "sigmoid"] = Field(
        "logit", description="raw outputs, or through a sigmoid to 0 … 1"
    )


class LikelihoodJudge(Pinned):
    """A causal LM: mean log-probability of the query's tokens after the document (query likelihood)."""

    kind: Literal["likelihood"]
    template: Str = Field(
        "{document}\n\nA question that this text answers: {query}",
        description="holds {document}, then {query} at its very end",
    )

    @model_validator(mode="after")
    def _query_stands_last(self) -> "LikelihoodJudge":
        if self.template.count("{document}") != 1 or self.template.count("{query}") != 1:
            raise ValueError("template must hold {document} and {query}, each once")
        if not self.template.endswith("{query}"):
            raise ValueError("template must end with {query}: what follows it would be scored too")
        return self


class YesNoJudge(Pinned):
    """A causal LM asked for relevance: logit of `yes` less logit of `no` after the prompt."""

    kind: Literal["yes_no"]
    template: Str = Field(
        "Document: {document}\n\nQuery: {query}\n\nDoes the document answer the query? Answer yes or no:",
        description="holds {document} and {query}",
    )
    yes: Str = Field(" yes", description="a word of one token")
    no: Str = Field(" no", description="a word of one token")

    @model_validator(mode="after")
    def _both_sides(self) -> "YesNoJudge":
        if self.template.count("{document}") != 1 or self.template.count("{query}") != 1:
            raise ValueError("template must hold {document} and {query}, each once")
        return self


Retriever = Annotated[
    EncoderJudge | ModelJudge | BM25Judge | EndpointJudge | RowsJudge, Field(discriminator="kind")
]
Teacher = Annotated[
    EncoderJudge
    | ModelJudge
    | BM25Judge
    | EndpointJudge
    | RowsJudge
    | CrossEncoderJudge
    | LikelihoodJudge
    | YesNoJudge,
    Field(discriminator="kind"),
]


class ReciprocalRank(Strict):
    """Σ 1 / (k + rank) over the retrievers that list a candidate (reciprocal rank fusion)."""

    kind: Literal["rrf"]
    k: AtLeastOne = Field(60, description="the larger, the less the first ranks weigh")


class Concatenate(Strict):
    """The lists in turn, rank by rank: each retriever's first, each one's second …"""

    kind: Literal["concatenate"]
    deduplicate: Bool = Field(
        False, description="list a candidate once; or as often as it was found, which makes it likelier drawn"
    )


Fusion = Annotated[ReciprocalRank | Concatenate, Field(discriminator="kind")]


class Approximate(Strict):
    """Search by a FAISS index (extra `faiss`) instead of all documents; its recall is measured and told."""

    above_documents: AtLeastOne = Field(description="search exactly up to so many documents")
    num_lists: AtLeastOne = Field(4096, description="cells of the index (IVF)")
    num_probes: AtLeastOne = Field(64, description="cells searched for a query")


class EnsembleMean(Strict):
    """Mean of the columns, each brought to mean 0 and deviation 1 over a row's candidates and positives."""

    kind: Literal["mean"]
    name: ColumnName = Field(description="name of the new column")
    of: tuple[ColumnName, ...] = Field(min_length=2, description="columns of teachers or retrievers")
    weights: tuple[Positive, ...] | None = Field(None, description="one a column; absent means all alike")

    @model_validator(mode="after")
    def _a_weight_each(self) -> "EnsembleMean":
        if self.weights is not None and len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} columns; expected one each")
        return self


class EnsembleRanks(Strict):
    """Reciprocal rank fusion of the columns over a row's candidates and positives."""

    kind: Literal["rrf"]
    name: ColumnName = Field(description="name of the new column")
    of: tuple[ColumnName, ...] = Field(min_length=2, description="columns of teachers or retrievers")
    k: AtLeastOne = Field(60, description="the larger, the less the first ranks weigh")


Ensemble = Annotated[EnsembleMean | EnsembleRanks, Field(discriminator="kind")]
