"""The stage that learns a teacher's vectors (LEAF)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from embedtrain.config.retrievers import EndpointJudge
from embedtrain.config.stage import CHECKPOINTING, Stage
from embedtrain.config.tuning import Decay, Lora, TeacherModel
from embedtrain.config.types import (
    AtLeastOne,
    Bool,
    Count,
    Fraction,
    NotNegative,
    Positive,
    Str,
    Strict,
)


class ModelTeacher(TeacherModel):
    """A model that encodes the texts here, each with the model's own prompt of its side."""

    kind: Literal["model"]


class StoredTeacher(Strict):
    """Vectors that were made elsewhere: the teacher itself is never seen."""

    kind: Literal["vectors"]
    folder: Str = Field(
        description="holds `query.npy` or `document.npy` or both, one row a text of the file beside it: "
        "`query.txt` (a text a line) or `query.jsonl` (`text`)"
    )


DistilTeacher = Annotated[ModelTeacher | StoredTeacher | EndpointJudge, Field(discriminator="kind")]


class Distil(Stage):
    """A student learns a teacher's vectors of queries and documents together (LEAF, arXiv:2509.12539).

    It then answers for the teacher: documents encoded by the one are searched with queries encoded by the
    other. Its vectors are brought to length 1 where the teacher's are.
    """

    free: ClassVar[frozenset[str]] = CHECKPOINTING

    kind: Literal["distil"]
    from_: Str = Field("base", alias="from", description="`base` or an earlier train, distil or soup stage")
    teacher: DistilTeacher = Field(description="whose vectors are learned")
    rows: Str | None = Field(
        None, description="an earlier filter or select stage; absent means the sources as they are"
    )
    sources: tuple[Str, ...] | None = Field(
        None, description="sources whose queries and positives are learned; absent means all with a weight"
    )
    negatives: Bool = Field(False, description="their stored negatives too")
    texts: tuple[Str, ...] = Field(
        (), description="more documents: files or folders of texts or rows, as `corpus` of a mine stage"
    )
    max_texts: AtLeastOne | None = Field(
        None, description="texts to learn, drawn with the seed; absent means all"
    )
    held_out_texts: AtLeastOne = Field(1000, description="texts kept from training, to validate on")
    vector_precision: Literal["float32", "float16"] = Field(
        "float32", description="of the stored teacher vectors; float16 halves the disk"
    )
    distance: Literal["squared_l2", "cosine"] = Field(
        "squared_l2", description="|student - teacher|^2, or 1 - cosine"
    )
    projection: Literal["drawn", "fitted", "none"] = Field(
        "drawn",
        description="a linear layer with bias to the teacher's dims, exported as a Dense module: drawn from "
        "the seed, or fitted to the untrained student's vectors by least squares; none needs equal dims",
    )
    tuning: Literal["lora", "full"] = Field("full", description="train adapters, or all weights")
    lora: Lora = Field(default_factory=Lora, description="the adapters; only with `tuning: lora`")
    dropout: Bool = Field(
        True, description="train with the student's own dropout; a short run learns more without it"
    )
    batch_size: AtLeastOne = Field(32, description="texts in the global batch, over all processes")
    cycles: AtLeastOne = Field(3, description="times that the learning rate falls")
    epochs_per_cycle: Positive = Field(10.0, description="passes over the texts in a cycle")
    lr: Positive = Field(1e-4, description="learning rate at the start of a cycle")
    final_fraction: Fraction = Field(0.1, description="learning rate at its end, as a share of `lr`")
    warmup_fraction: Fraction = Field(0.0, description="share of the first cycle's steps spent warming up")
    weight_decay: NotNegative = Field(0.0, description="AdamW's decoupled weight decay")
    max_gradient_norm: Positive = Field(1.0, description="gradient norm is clipped to it")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="AdamW's two averages")
    patience: AtLeastOne | None = Field(
        None,
        description="stop after so many validations, one an epoch, without a lower loss; the best is kept",
    )
    max_skipped_steps: Count = Field(
        3,
        description="a step whose loss or gradient is no number is skipped; more than so many in a row end "
        "the stage",
    )
    save_every_steps: AtLeastOne = Field(500, description="checkpoint interval")
    save_every_minutes: Positive | None = Field(
        None, description="a checkpoint also when the last one is so old, by the first process's clock"
    )
    keep_last: AtLeastOne = Field(2, description="complete checkpoints kept")
    max_query_tokens: AtLeastOne | None = Field(None, description="overrides the text section")
    max_document_tokens: AtLeastOne | None = Field(None, description="overrides the text section")
    seed: Count | None = Field(None, description="overrides the run's seed for this stage")

    @model_validator(mode="after")
    def _fits_together(self) -> "Distil":
        if self.tuning == "full" and "lora" in self.model_fields_set:
            raise ValueError("tuning is 'full' but a lora section is given; remove one of them")
        if not self.dropout and self.lora.dropout > 0:
            raise ValueError(f"dropout is false and lora.dropout {self.lora.dropout:g}; remove one of them")
        if isinstance(self.teacher, EndpointJudge) and self.teacher.gives == "scores":
            raise ValueError(
                "an endpoint that gives scores has no vectors to learn; expected `gives: vectors`"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused_lora(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        return written if self.tuning == "lora" else {k: v for k, v in written.items() if k != "lora"}
