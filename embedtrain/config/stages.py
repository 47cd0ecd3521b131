"""The stages of a run: one class a kind, told apart by `kind`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from embedtrain.config.distilling import Distil
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.objective import Objective
from embedtrain.config.soups import Soup
from embedtrain.config.sources import Mixture
from embedtrain.config.stage import CHECKPOINTING, Stage
from embedtrain.config.tuning import Decay, Lora, RowTeacher, TeacherModel
from embedtrain.config.types import (
    LINK_NAME,
    AtLeastOne,
    Bool,
    Count,
    Float,
    Fraction,
    Int,
    NotNegative,
    Positive,
    Str,
    Strict,
)
from embedtrain.config.validating import Validating


class Schedule(Strict):
    """Learning rate over the steps: linear warm-up, then the decay of `kind`."""

    kind: Literal["constant", "linear", "cosine"] = Field("linear", description="decay after the warm-up")
    warmup_fraction: Fraction = Field(0.1, description="share of the steps spent warming up")
    final_fraction: Fraction = Field(0.0, description="last learning rate as a share of the first")


class Train(Stage):
    """Optimizer steps on rows: encode, gather, objective, backward."""

    free: ClassVar[frozenset[str]] = frozenset({*CHECKPOINTING, "diagnostics_every_steps"})

    kind: Literal["train"]
    from_: Str = Field("base", alias="from", description="`base` or an earlier train, distil or soup stage")
    rows: Str | None = Field(
        None, description="an earlier filter or select stage; absent means the sources as they are"
    )
    sources: tuple[Str, ...] | None = Field(
        None, description="names of the sources to use; absent means all that have a weight"
    )
    tuning: Literal["lora", "full"] = Field("lora", description="train adapters, or all weights")
    lora: Lora = Field(default_factory=Lora, description="the adapters; only with `tuning: lora`")
    objective: Objective = Field(description="what is minimised")
    teacher: RowTeacher | None = Field(
        None, description="for terms with `teacher: vectors` or `judge: teacher`, and embed_distill"
    )
    batch_size: Annotated[Int, Field(ge=2)] = Field(
        description="rows in the global batch, over all processes"
    )
    num_negatives: Count = Field(
        0, description="hard negatives a row, drawn from those stored by (seed, step, row)"
    )
    mixture: Mixture = Field(default_factory=Mixture, description="which rows meet in a batch")
    steps: AtLeastOne | None = Field(None, description="optimizer steps; or give epochs")
    epochs: Positive | None = Field(
        None, description="passes over as many rows as the sources have together; or give steps"
    )
    lr: Positive = Field(description="peak learning rate")
    schedule: Schedule = Field(default_factory=Schedule, description="learning rate over the steps")
    weight_decay: NotNegative = Field(0.0, description="AdamW's decoupled weight decay")
    max_gradient_norm: Positive = Field(1.0, description="gradient norm is clipped to it")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="AdamW's two averages")
    max_skipped_steps: Count = Field(
        3,
        description="a step whose loss or gradient is no number is skipped; more than so many in a row end "
        "the stage",
    )
    save_every_steps: AtLeastOne = Field(100, description="checkpoint interval")
    save_every_minutes: Positive | None = Field(
        None, description="a checkpoint also when the last one is so old, by the first process's clock"
    )
    keep_last: AtLeastOne = Field(2, description="complete checkpoints kept")
    validation: Validating | None = Field(
        None, description="test data that the encoder is measured on as it trains"
    )
    snapshot_steps: tuple[AtLeastOne, ...] = Field(
        (), description="steps after which the encoder is kept too, for a soup or an export of `NAME@STEP`"
    )
    diagnostics_every_steps: Count = Field(
        10, description="interval of cosines, mask shares and the like in the curve; 0 means never"
    )
    max_query_tokens: AtLeastOne | None = Field(None, description="overrides the text section")
    max_document_tokens: AtLeastOne | None = Field(None, description="overrides the text section")
    seed: Count | None = Field(None, description="overrides the run's seed for this stage")

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "Train":
        if (self.steps is None) == (self.epochs is None):
            given = "both steps and epochs are" if self.steps else "neither steps nor epochs is"
            raise ValueError(f"{given} given; expected one of them")
        return self

    @model_validator(mode="after")
    def _lora_only_with_lora(self) -> "Train":
        if self.tuning == "full" and "lora" in self.model_fields_set:
            raise ValueError("tuning is 'full' but a lora section is given; remove one of them")
        return self

    @model_serializer(mode="wrap")
    def _without_unused_lora(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        return written if self.tuning == "lora" else {k: v for k, v in written.items() if k != "lora"}


class Filter(Stage):
    """Rows without what an audit finds wrong; each rule counts what it removes."""

    kind: Literal["filter"]
    sources: tuple[Str, ...] | None = Field(
        None, description="names of the sources to filter; absent means all that have a weight"
    )
    exact_duplicates: Bool = Field(
        True, description="drop rows whose query and positives all came before, in any case and white space"
    )
    near_duplicates: Annotated[Float, Field(gt=0, lt=1)] | None = Field(
        None, description="drop rows whose texts overlap an earlier row's by so much (Jaccard, MinHash)"
    )
    query_is_positive: Bool = Field(True, description="drop rows whose query is one of its positives")
    false_negatives: Bool = Field(
        True, description="drop negatives that this or another row of the query calls a positive"
    )
    control_characters: Bool = Field(True, description="drop rows with control or replacement characters")
    languages: tuple[Str, ...] | None = Field(
        None, description="keep rows in these languages (ISO 639-1); absent means any"
    )
    min_query_words: Count = Field(0, description="drop rows with a shorter query")
    min_positive_words: Count = Field(0, description="drop positives that are shorter")
    test_data: tuple[Str, ...] = Field(
        (), description="evaluation data that no row may share an n-gram with: folders or files"
    )
    ngram_words: AtLeastOne = Field(
        10, description="words of such an n-gram; a test text with fewer counts as a whole"
    )


class Export(Stage):
    """A checkpoint into a folder that sentence-transformers, TEI and vLLM load, with parity.json."""

    kind: Literal["export"]
    from_: Str = Field(
        alias="from",
        description="`base`, an earlier train, distil or soup stage, or `NAME@STEP`, a snapshot of one",
    )
    documents: TeacherModel | None = Field(
        None,
        description="the model that documents are encoded with: then `router/` beside `model/` holds both",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="merged in float32, cast once to this"
    )
    attention: Literal["bidirectional", "causal"] | None = Field(
        None, description="only with `from: base`, to measure the untouched base either way"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="length limit of the folder; absent means the longer side's limit in training"
    )
    few_shot_examples: dict[Str, AtLeastOne] = Field(
        default_factory=dict,
        description="by source, how many fixed examples its prompt `<source>_<n>_shot` holds",
    )
    few_shot_by_default: Bool = Field(
        False,
        description="the prompts of those sources, and of their tasks, hold the examples too; "
        "`<source>_0_shot` is the one without",
    )
    num_parity_texts: AtLeastOne = Field(256, description="texts encoded again to prove the export")
    link: Annotated[Str, Field(pattern=LINK_NAME)] | None = Field(
        None, description="name of a link in the run's folder to this export, for example model"
    )

    @model_validator(mode="after")
    def _attention_of_base(self) -> "Export":
        if self.attention is not None and self.from_ != "base":
            raise ValueError(
                f"attention is only for `from: base`; '{self.from_}' keeps the one it was trained with"
            )
        return self

    @model_validator(mode="after")
    def _default_needs_examples(self) -> "Export":
        if self.few_shot_by_default and not self.few_shot_examples:
            raise ValueError("few_shot_by_default is on, but few_shot_examples names no source")
        return self


class Pair(Strict):
    """Two models that share a vector space: a student for queries, its teacher for documents."""

    queries: Str = Field(description="one of `models`")
    documents: Str = Field(description="one of `models`")


class MtebTask(Strict):
    """A task of mteb by name; the name alone stands for all of its splits and languages."""

    task: Str = Field(description="mteb's name of it, such as NFCorpus")
    splits: tuple[Str, ...] = Field((), description="some of its splits; absent means all")
    languages: tuple[Str, ...] = Field((), description="some of its languages, such as eng; absent means all")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value


class Evaluate(Stage):
    """Exported folders measured on local data and on tasks of mteb; writes a report."""

    kind: Literal["evaluate"]
    models: tuple[Str, ...] = Field(
        min_length=1,
        description="earlier export stages, or sentence-transformers folders, hub ids or `pip:` packages",
    )
    intermediate: tuple[Str, ...] = Field((), description="more models, measured on the first of `data` only")
    data: tuple[Str, ...] = Field((), description="folders or files with held-out test data")
    mteb: tuple[MtebTask, ...] = Field(
        (), description="tasks of mteb by name, or sections with `task`, `splits`, `languages`"
    )
    in_domain_data: tuple[Str, ...] = Field(
        (), description="test data from the training sources' own held-out splits, reported apart"
    )
    max_tokens_per_model: AtLeastOne | None = Field(
        None, description="cut the tasks to fixed subsets of about this many tokens in all"
    )
    bm25: Bool = Field(True, description="a BM25 row for retrieval")
    pairs: tuple[Pair, ...] = Field(
        (), description="asymmetric search: queries by one of `models`, documents by another"
    )
    truncation: tuple[AtLeastOne, ...] = Field(
        (), description="measure each of `models` with its vectors cut to so many dims too"
    )
    quantisation: tuple[Literal["int8", "binary"], ...] = Field(
        (), description="measure each of `models` with its vectors in so few bits too"
    )
    mteb_results: Bool = Field(
        False, description="write the results on `data` in mteb's format too; those of `mteb` always are"
    )
    report: Bool = Field(True, description="write report.html beside report.json")

    @model_validator(mode="after")
    def _something_to_measure(self) -> "Evaluate":
        if not self.data and not self.mteb:
            raise ValueError("neither data nor mteb is given; expected one of them")
        if self.intermediate and not self.data:
            raise ValueError("intermediate models are measured on the first of `data`, and none is given")
        return self


AnyStage = Annotated[
    Train | Filter | Mine | Score | Select | Distil | Soup | Export | Evaluate, Field(discriminator="kind")
]
