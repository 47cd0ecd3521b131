"""Mines candidates: for every row, the documents of its source nearest to the query, by an earlier model."""

from collections.abc import Mapping

from embedtrain.artifacts import hash_json
from embedtrain.config.mining import Mine
from embedtrain.mining.corpus import build_corpus, draw_rows
from embedtrain.mining.retrieve import Retriever, Tally, retrieve
from embedtrain.mining.tables import (
    CANDIDATES,
    CANDIDATES_SCHEMA,
    CORPUS,
    CORPUS_SCHEMA,
    corpus_table,
    mined_table,
    table_writer,
)
from embedtrain.model.encoder import weights_hash
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_sources, open_start


def run_stage(context: StageContext) -> dict[str, object]:
    """Write candidates.parquet and corpus.parquet; the facts are counts, seconds and shares, by source."""
    stage = context.stage
    assert isinstance(stage, Mine)
    facts = mine_sources(context, stage, open_retriever(context))
    print_facts(facts)
    return {"sources": facts}


def mine_sources(context: StageContext, stage: Mine, retriever: Retriever) -> dict[str, dict[str, object]]:
    """Mine one source after the other; the facts of each."""
    facts: dict[str, dict[str, object]] = {}
    sources = open_sources(context, stage)
    with (
        table_writer(context.folder / CORPUS, CORPUS_SCHEMA) as corpus_file,
        table_writer(context.folder / CANDIDATES, CANDIDATES_SCHEMA) as candidates_file,
    ):
        for name, rows in sources.items():
            source = context.run.sources[name]
            numbers = draw_rows(len(rows), stage.max_rows, context.seed, name)
            corpus = build_corpus(rows, numbers, stage.corpus_size, context.seed, name)
            corpus_file.write_table(corpus_table(name, corpus.keys_N, corpus.texts))
            tally = Tally(stage.top_k)
            for mined in retrieve(retriever, rows.take(numbers), numbers, corpus, source, name, tally):
                candidates_file.write_table(mined_table(name, mined))
            counts = {"rows": len(rows), "mined_rows": len(numbers), "documents": len(corpus.texts)}
            facts[name] = counts | tally.facts()
    return facts


def open_retriever(context: StageContext) -> Retriever:
    """The model of the stage named by `from`, or the untouched base."""
    encoder = open_start(context)
    return Retriever(
        encoder=encoder,
        weights=weights_hash(encoder),
        template=hash_json(encoder.spec.to_json()),
        text=encoder.spec.text,
        store=context.vector_store,
        tokens_per_batch=context.machine.encode_tokens,
        device=context.machine.device,
        seed=context.run.seed,
    )


def print_facts(facts: Mapping[str, Mapping[str, object]]) -> None:
    """One line a source."""
    columns = list(next(iter(facts.values())))
    print_table(
        "Mined",
        ["source", *(name.replace("_", " ") for name in columns)],
        [[name, *(fact.get(column) for column in columns)] for name, fact in facts.items()],
        note="positive in top n: share of rows whose lowest-scored positive is among the n nearest documents",
    )
