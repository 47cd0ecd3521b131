"""Exports: an encoder in; out a folder that sentence-transformers, TEI and vLLM load, and the proof of it.

With a model of documents beside it, also a Router package of both.
"""

import shutil
from dataclasses import replace

import numpy as np

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError
from embedtrain.config.stages import Export
from embedtrain.data.examples import prompt_examples
from embedtrain.data.store import open_source
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.parity import check_parity
from embedtrain.model.prompts import SourcePrompts
from embedtrain.model.quantised import drift, quantise
from embedtrain.show.facts import RunFacts
from embedtrain.stages.context import StageContext
from embedtrain.stages.export_router import export_router
from embedtrain.stages.opening import open_start
from embedtrain.stages.run_report.facts import made_by, run_facts
from embedtrain.text import source_text

MODEL = "model"


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `model/`, `router/` where asked, and `parity.json`.

    Raises UserError where a folder encodes unlike the encoder, or unlike the model of documents.
    """
    stage = context.stage
    assert isinstance(stage, Export)
    encoder = with_limit(open_start(context), stage.max_tokens)
    sources = prompt_sources(context, stage, encoder)
    shutil.rmtree(context.folder / MODEL, ignore_errors=True)
    export_encoder(
        encoder,
        context.folder / MODEL,
        precision=stage.precision,
        facts=card_facts(context, stage),
        sources=sources,
    )
    queries, documents = parity_texts(context, stage)
    parity = check_parity(encoder, context.folder / MODEL, queries, documents, sources=sources)
    if context.run.base.load is not None and encoder.lora is not None:
        parity["quantised"] = drift_of(context, encoder, [*queries, *documents])
    if stage.documents is not None:
        del encoder  # it would stand in memory beside both models
        name, texts = card_facts(context, stage).name, (queries, documents)
        router = export_router(context, context.folder / MODEL, stage.documents, texts, name)
        parity["router"] = router
    write_json(context.folder / "parity.json", parity)
    print(f"{stage.name}: sentence-transformers gives the same vectors; see parity.json")
    return {"parity": parity}


def drift_of(context: StageContext, encoder: Encoder, texts: list[str]) -> dict[str, float]:
    """Cosines between vectors of the adapters on the 4-bit base, as they trained, and the exported ones."""
    trained = open_start(context).to("cpu")
    quantise(trained)
    trained.to(context.machine.device)
    found = drift(trained.encode(texts), encoder.encode(texts))
    print(f"4-bit base against the exported weights: cosine {found['mean_cosine']:.4f} in the mean")
    return found


def with_limit(encoder: Encoder, max_tokens: int | None) -> Encoder:
    """The encoder, reading texts up to `max_tokens`."""
    if max_tokens is not None:
        longest = encoder.backbone.config.max_position_embeddings
        if max_tokens > longest:
            raise UserError(f"max_tokens {max_tokens} is more than the {longest} positions of the model")
        limits = {"max_query_tokens": max_tokens, "max_document_tokens": max_tokens}
        encoder.spec = replace(encoder.spec, text=encoder.spec.text.model_copy(update=limits))
    return encoder


def prompt_sources(context: StageContext, stage: Export, encoder: Encoder) -> dict[str, SourcePrompts]:
    """How each source is written, for the prompts of the folder, with fixed examples where the stage asks."""
    sources = {}
    for name, source in context.run.sources.items():
        how = source_text(encoder.spec.text, source, context.run.seed)
        if stage.max_tokens is not None:
            how = replace(how, max_query_tokens=stage.max_tokens, max_document_tokens=stage.max_tokens)
        examples = {}
        if number := stage.few_shot_examples.get(name):
            rows = open_source(source, name, context.seed)
            examples[number] = prompt_examples(rows, number, context.seed, name, how, encoder.tokenizer)
        sources[name] = SourcePrompts(how, source.tasks, examples, stage.few_shot_by_default)
    return sources


def parity_texts(context: StageContext, stage: Export) -> tuple[list[str], list[str]]:
    """Real texts of all sources, half queries and half positives, drawn with the seed."""
    stores = [open_source(source, name, context.seed) for name, source in context.run.sources.items()]
    ends = np.cumsum([len(store) for store in stores], dtype=np.int64)
    if not stores:
        raise UserError(
            f"stage '{stage.name}': the run has no sources, so there is no text to prove the export on"
        )
    count = min((stage.num_parity_texts + 1) // 2, int(ends[-1]))
    drawn = np.random.default_rng(context.seed).choice(ends[-1], count, replace=False)
    places = zip(np.searchsorted(ends, drawn, "right").tolist(), drawn.tolist(), strict=True)
    rows = [stores[number][row - int(ends[number])] for number, row in places]  # counted from the store's end
    return [row.query for row in rows], [row.positives[0] for row in rows]


def card_facts(context: StageContext, stage: Export) -> RunFacts:
    """What the model card says: the facts of the stages that the model comes from."""
    folders = made_by(context.run, context.folder.parent, context.inputs)
    facts = run_facts(context.run, folders, until=stage.name)
    return replace(facts, name=f"{context.run.name} {stage.link or stage.name}")
