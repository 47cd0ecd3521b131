"""The train stage: all faults at once, and a teacher whose vectors it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exports import PREFIXED, tiny_export
from processes import run_on
from taught_sources import BARE, FULL, context_of, make_run, stage_of, write_sources
from tiny_models import save_tiny

from embedtrain.artifacts import write_json
from embedtrain.config.errors import ConfigError, UserError
from embedtrain.config.inputs import template_faults
from embedtrain.config.load import resolved
from embedtrain.config.references import inputs_of
from embedtrain.config.schema import TextFormat
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import write_store
from embedtrain.dist import current
from embedtrain.model.st import open_sentence_transformer
from embedtrain.pipeline import outside_paths
from embedtrain.stages import train as train_stage
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_sources
from embedtrain.stages.probe import probe
from embedtrain.stages.teacher import (
    TEACHER,
    StoredVectors,
    lookups,
    require_whole_words,
    teacher_vectors,
)
from embedtrain.templates import validate_template
from embedtrain.train.log import read_curve

# --- the stage ----------------------------------------------------------------------------------------------


def test_all_faults_at_once_and_nothing_trained(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base")
    write_sources(tmp_path)
    terms = [{"kind": "cosent"}, {"kind": "infonce", "matryoshka": {"dims": [64]}}, {"kind": "margin_mse"}]
    context = context_of(make_run(tmp_path, terms))
    with pytest.raises(ConfigError) as caught:
        train_stage.run_stage(context)
    assert [message.split(": ")[0] for message in caught.value.messages] == [
        "stages 'tune' > objective.terms[0] (cosent), source 'bare'",
        "stages 'tune' > objective.terms[2] (margin_mse), source 'bare'",
        "stages 'tune' > objective.terms[1] (infonce) > matryoshka.dims",
    ]
    assert list(context.folder.iterdir()) == []


def test_the_probe_says_it_before_the_first_stage(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base")
    write_sources(tmp_path)
    run = make_run(tmp_path, [{"kind": "cosent", "matryoshka": {"dims": [64]}}])
    with pytest.raises(ConfigError) as caught:
        probe(write_json(tmp_path / "run.json", resolved(run)))
    assert [message.split(": ", 1)[1] for message in caught.value.messages] == [
        "no two rows have different grades; expected numbers under 'score'",
        "found 64, and the model's vectors have 32 dims",
    ]
    probe(write_json(tmp_path / "run.json", resolved(make_run(tmp_path, [{"kind": "infonce"}]))))


# --- a teacher ----------------------------------------------------------------------------------------------

TAUGHT = [
    {"kind": "embed_distill", "sources": ["full"]},
    {"kind": "distill_kl", "teacher": "vectors", "sources": ["full"]},
    {"kind": "infonce", "masks": [{"kind": "above_margin", "judge": "teacher"}], "sources": ["pairs"]},
    {"kind": "spread", "sources": ["bare"]},
]
SOURCES: dict[str, dict] = {"bare": {}, "full": {}, "pairs": {"symmetric": True}}
PAIRS = [Row(f"one side {n}", (f"other side {n}",)) for n in range(6)]


def taught_context(folder: Path, name: str = "tune-1.partial", **stage: object) -> StageContext:
    """A stage whose teacher is an exported tiny model with prompts of its own."""
    if not (folder / "taught").exists():
        tiny_export(folder / "taught", text=PREFIXED)
        save_tiny("llama", folder / "base", seed=3)
        write_sources(folder)
        write_rows(folder / "pairs.parquet", PAIRS)
    run = make_run(folder, TAUGHT, SOURCES, teacher={"model": "taught"}, **stage)
    return context_of(run, name, taught=folder / "taught")


def stored(context: StageContext) -> StoredVectors:
    stage = stage_of(context.run)
    assert stage.teacher is not None
    return teacher_vectors(context, stage, stage.teacher, {"bare": BARE, "full": FULL, "pairs": PAIRS})


def test_vectors_are_the_teachers_with_its_own_prompts(tmp_path: Path) -> None:
    context = taught_context(tmp_path)
    vectors = stored(context)
    model = open_sentence_transformer(tmp_path / "taught" / "model").model
    assert model.prompts["query"] != model.prompts["document"]
    raw = {"normalize_embeddings": False}
    questions, wrong = [row.query for row in FULL], [text for row in FULL for text in row.negatives]
    others = [text for row in PAIRS for text in row.positives]
    for texts, side, expected in (
        (questions, "query", model.encode_query(questions, **raw)),
        (wrong, "document", model.encode_document(wrong, **raw)),
        (others, "query", model.encode_query(others, **raw)),
    ):
        np.testing.assert_allclose(vectors(texts, side), expected, rtol=1e-5, atol=1e-6)
    assert vectors(questions[::-1], "query").tolist() == vectors(questions, "query")[::-1].tolist()
    assert vectors([], "document").shape == (0, 32)
    assert isinstance(vectors.vectors["query"], np.memmap)


PROMPT = "Instruct: {instruction}\nQuery: "


def instructed(folder: Path, prompt: str = PROMPT, **pairs: str) -> StageContext:
    """The same, asked in these words."""
    taught_context(folder)
    sources = {**SOURCES, "full": {"instruction": "Answer"}, "pairs": {"symmetric": True, **pairs}}
    taught = {"model": "taught", "query_prompt": prompt}
    return context_of(make_run(folder, TAUGHT, sources, teacher=taught), taught=folder / "taught")


def test_a_teacher_is_asked_with_the_row_s_instruction(tmp_path: Path) -> None:
    """Both sides of a symmetric source too; documents have the teacher's own prompt."""
    context = instructed(tmp_path, instruction="Find the like")
    stage, rows = stage_of(context.run), [replace(FULL[0], instruction="Explain"), *FULL]
    assert stage.teacher is not None
    vectors = teacher_vectors(context, stage, stage.teacher, {"full": rows, "pairs": PAIRS})
    model = open_sentence_transformer(tmp_path / "taught" / "model").model
    raw = {"normalize_embeddings": False, "prompt": ""}
    query, answer, other = FULL[0].query, FULL[0].positives[0], PAIRS[0].positives[0]
    for text, instruction in ((query, "Answer"), (query, "Explain"), (other, "Find the like")):
        expected = model.encode(f"Instruct: {instruction}\nQuery: {text}", **raw)
        np.testing.assert_allclose(vectors([text], "query", [instruction])[0], expected, rtol=1e-5, atol=1e-6)
    expected = model.encode_document(answer, normalize_embeddings=False)
    np.testing.assert_allclose(vectors([answer], "document", ["any"])[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(KeyError, match="no teacher vector of the query"):
        vectors([query], "query", ["Find the like"])


def test_an_instruction_for_the_teacher_alone_is_seen(tmp_path: Path) -> None:
    """No template of the student shows it, and the config is right all the same."""
    run = instructed(tmp_path, instruction="Find the like").run
    faults = [str(fault) for fault in template_faults(run, validate_template)]
    assert faults == []
    unseen = instructed(tmp_path, prompt="ask: ", instruction="Find the like").run
    assert len(list(template_faults(unseen, validate_template))) == 2


def test_a_prompt_without_an_instruction_is_one_for_all(tmp_path: Path) -> None:
    vectors = stored(instructed(tmp_path, prompt="ask: "))
    model = open_sentence_transformer(tmp_path / "taught" / "model").model
    expected = model.encode(f"ask: {FULL[0].query}", prompt="", normalize_embeddings=False)
    np.testing.assert_allclose(vectors([FULL[0].query], "query", ["any"])[0], expected, rtol=1e-5, atol=1e-6)


def test_a_prompt_that_would_take_a_word_out_of_the_pool_is_told(tmp_path: Path) -> None:
    """A teacher that does not pool its prompt, and one whose last token joins the text's first word."""
    colon = TextFormat(query="ask:{text}", document="{text}")
    tiny_export(tmp_path / "unpooled", text=colon, pool_instruction=False)
    opened = open_sentence_transformer(tmp_path / "unpooled" / "model")
    require_whole_words(opened, "Query:")
    with pytest.raises(UserError, match="leaves prompts out of its pool"):
        require_whole_words(opened, "Query: ")
    tiny_export(tmp_path / "pooled", text=colon)
    require_whole_words(open_sentence_transformer(tmp_path / "pooled" / "model"), "Query: ")


def test_a_missing_instruction_is_told_before_anything_is_encoded(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        stored(instructed(tmp_path))
    assert str(error.value) == (
        "stage 'tune': teacher.query_prompt shows {instruction}, and source 'pairs' has none for the query "
        "'one side 0'; give the source or its rows an instruction"
    )


def test_only_the_texts_that_are_needed_are_encoded(tmp_path: Path) -> None:
    context = taught_context(tmp_path)
    vectors = stored(context)
    assert len(vectors.keys["query"]) == len(FULL) + 2 * len(PAIRS)
    assert len(vectors.keys["document"]) == 4 * len(FULL)
    for texts, side in ((["query 0"], "query"), (["question 0"], "document"), (["new"], "query")):
        with pytest.raises(KeyError, match=f"no teacher vector of the {side} '{texts[0]}'"):
            vectors(texts, side)
    assert set(lookups(stage_of(context.run), SOURCES, vectors)) == {"full", "pairs"}
    fewer = stored(taught_context(tmp_path, "tune-2.partial", num_negatives=0))
    assert len(fewer.keys["document"]) == 2 * len(FULL)


def test_the_stage_learns_from_its_teacher_and_leaves_only_the_store(tmp_path: Path) -> None:
    context = taught_context(tmp_path, steps=40, lr=1e-2)
    facts = train_stage.run_stage(context)
    curve = read_curve(context.folder / "curve.jsonl")
    assert facts["steps"] == 40
    assert {line["source"] for line in curve} == set(SOURCES)
    learned = [line["embed_distill"] for line in curve if line["source"] == "full"]
    assert learned[-1] < 0.8 * learned[0]
    assert all("embed_distill" not in line for line in curve if line["source"] != "full")
    assert not (context.folder / TEACHER).exists()
    assert list(context.vector_store.glob("*/*.vectors.npy"))
    shards = {path: path.stat().st_mtime_ns for path in context.vector_store.glob("*/*.npy")}
    stored(taught_context(tmp_path, "tune-2.partial"))
    assert {path: path.stat().st_mtime_ns for path in context.vector_store.glob("*/*.npy")} == shards


def test_a_teacher_of_other_dims_is_refused_before_training(tmp_path: Path) -> None:
    context = taught_context(tmp_path)
    save_tiny("llama", tmp_path / "base", seed=3, hidden_size=48, head_dim=12)
    with pytest.raises(ConfigError) as caught:
        train_stage.run_stage(context)
    assert str(caught.value) == (
        "stages 'tune' > objective.terms[0] (embed_distill): the teacher's vectors have 32 dims, "
        "and 48 of the model's 48 are to learn them; set projection: true"
    )


def on_a_process(folder: Path) -> tuple[int, list[float]]:
    vectors = stored(taught_context_only(folder))
    return current().rank, vectors(["question 0"], "query")[0].tolist()


def taught_context_only(folder: Path) -> StageContext:
    """The context whose files another process has made."""
    assert (folder / "taught" / "model").exists()
    return taught_context(folder)


def test_rows_of_an_earlier_stage_are_read_and_none_other(tmp_path: Path) -> None:
    """A folder and a file of rows; a source without rows there is left out, or told where it is named."""
    written = tmp_path / "r" / "chosen" / "rows"
    write_store(written / "bare", BARE[:2])
    write_rows(written / "full.parquet", FULL[1:4])
    sources: dict[str, dict] = {"bare": {}, "full": {}, "third": {}}
    context = context_of(
        make_run(tmp_path, [{"kind": "infonce"}], sources, rows="chosen"), chosen=written.parent
    )
    opened = open_sources(context, stage_of(context.run))
    assert {name: list(rows) for name, rows in opened.items()} == {"bare": BARE[:2], "full": FULL[1:4]}
    named = stage_of(context.run).model_copy(update={"sources": ("third",)})
    with pytest.raises(
        UserError, match="stage 'tune': stage 'chosen' has no rows of third; it has bare, full"
    ):
        open_sources(context, named)


def test_two_processes_read_what_the_first_encodes(tmp_path: Path) -> None:
    taught_context(tmp_path)
    (first, vector), (second, same) = run_on(2, on_a_process, tmp_path)
    assert (first, second) == (0, 1)
    assert vector == same
    assert len(list((tmp_path / "r" / "vectors").glob("*/*.vectors.npy"))) == 2


def test_a_teacher_is_an_input_of_the_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path, TAUGHT, SOURCES, teacher={"model": "taught"})
    assert inputs_of(run, run.stages[1]) == ["taught"]
    outside = make_run(tmp_path, TAUGHT, SOURCES, teacher={"model": str(tmp_path)})
    assert inputs_of(outside, outside.stages[1]) == []
    assert str(tmp_path) in outside_paths(outside, outside.stages[1])


def test_a_teacher_that_is_no_model_is_told(tmp_path: Path) -> None:
    taught_context(tmp_path)
    context = context_of(make_run(tmp_path, TAUGHT, SOURCES, teacher={"model": str(tmp_path / "base")}))
    with pytest.raises(UserError, match=r"no modules\.json"):
        stored(context)
