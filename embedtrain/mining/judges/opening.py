"""From a retriever or teacher in the run file to a judge that works."""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Protocol

from embedtrain.artifacts import hash_folder, hash_json
from embedtrain.config.retrievers import (
    Approximate,
    BM25Judge,
    EncoderJudge,
    EndpointJudge,
    ModelJudge,
    RowsJudge,
)
from embedtrain.config.retrievers import Judge as AnyJudge
from embedtrain.config.schema import Machine, Run
from embedtrain.mining.endpoint import open_encoder as open_endpoint
from embedtrain.mining.judges.inquiry import Judge
from embedtrain.mining.judges.stored import StoredJudge
from embedtrain.mining.judges.vectors import Means, VectorJudge
from embedtrain.mining.judges.words import WordJudge
from embedtrain.mining.judges.writers import Precision, PromptWriter, SourceWriter, Writer
from embedtrain.model.encoder import Encoder, weights_hash
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.prompted import OWN_PROMPTS, Prompted
from embedtrain.model.source import resolve_model
from embedtrain.model.st import open_sentence_transformer

BASE = "base"


class Setting(Protocol):
    """What a stage knows: the run, the machine, finished stages' folders and the store of vectors."""

    @property
    def run(self) -> Run:
        """The whole run."""

    @property
    def machine(self) -> Machine:
        """How to run."""

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Folders of finished stages, by name."""

    @property
    def vector_store(self) -> Path:
        """The run's vectors."""


def open_judge(
    judge: AnyJudge, setting: Setting, dtype: Precision = "float32", approximate: Approximate | None = None
) -> Judge:
    """The judge, its model opened. `dtype` is that of stored vectors.

    Raises UserError where a model cannot be opened, or the key of an endpoint lacks.
    """
    match judge:
        case BM25Judge():
            return WordJudge(judge)
        case RowsJudge():
            return StoredJudge(judge)
    machine = setting.machine
    means = Means(setting.vector_store, machine.encode_tokens, machine.device, approximate, setting.run.seed)
    return VectorJudge(judge.column, open_writer(judge, setting, dtype), means)


@singledispatch
def open_writer(judge: AnyJudge, setting: Setting, dtype: Precision) -> Writer:
    """The encoder of a judge by cosine."""
    raise TypeError(f"{type(judge).__name__} gives no vectors")


@open_writer.register
def _(judge: EncoderJudge, setting: Setting, dtype: Precision) -> Writer:
    encoder = open_of_run(setting, judge.from_)
    template = hash_json(encoder.spec.to_json())
    return SourceWriter(encoder, weights_hash(encoder), template, encoder.spec.text, setting.run.seed, dtype)


@open_writer.register
def _(judge: ModelJudge, setting: Setting, dtype: Precision) -> Writer:
    """An embedtrain checkpoint by its own templates, any other folder by sentence-transformers."""
    folder, device = model_folder(judge, setting.inputs), setting.machine.device
    if (folder / "encoder.json").is_file():
        own = open_encoder(folder, device=device)
        return PromptWriter(own, weights_hash(own), hash_json(own.spec.to_json()), judge.max_tokens, dtype)
    model = open_sentence_transformer(folder, device=device, max_tokens=judge.max_tokens, name=judge.model)
    return PromptWriter(Prompted(model), hash_folder(folder), OWN_PROMPTS, judge.max_tokens, dtype)


@open_writer.register
def _(judge: EndpointJudge, setting: Setting, dtype: Precision) -> Writer:
    encoder = open_endpoint(judge, world=setting.machine.num_processes)
    return PromptWriter(encoder, encoder.weights, encoder.template, None, dtype)


def open_of_run(setting: Setting, name: str) -> Encoder:
    """The untouched base, or what an earlier stage left."""
    run, device = setting.run, setting.machine.device
    if name != BASE:
        return open_encoder(setting.inputs[name] / "encoder", device=device)
    return load_encoder(run.base, run.encoder, run.text, precision=run.precision, device=device)


def model_folder(judge: ModelJudge, inputs: Mapping[str, Path]) -> Path:
    """An export stage's model, or the local folder of what the run file names."""
    if judge.model in inputs:
        return inputs[judge.model] / "model"
    return resolve_model(judge.model, revision=judge.revision, sha256=judge.sha256).path
