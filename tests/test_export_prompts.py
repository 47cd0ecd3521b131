"""One string and one list of token ids in training, mining and the exported folder, for every template."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exports import DOCUMENTS, QUERIES, change_json, source_prompts, tiny_encoder
from token_ids import ids_of

from embedtrain.artifacts import read_json
from embedtrain.collate import Collation, collate
from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.examples import prompt_examples
from embedtrain.data.rows import Row, text_key
from embedtrain.data.store import store_rows
from embedtrain.dist import Processes
from embedtrain.evaluation.measure import Remembering
from embedtrain.mining.corpus import Corpus
from embedtrain.mining.judges import Inquiry
from embedtrain.mining.judges.vectors import Means, VectorJudge
from embedtrain.mining.judges.writers import SourceWriter
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.parity import check_parity, cosine_distances
from embedtrain.model.prompts import SourcePrompts
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer
from embedtrain.text import Formatted, SourceText, format_document, format_query, source_text

LIMIT = 200
FMT = TextFormat(max_query_tokens=LIMIT, max_document_tokens=LIMIT)
INSTRUCTED = "Instruct: {instruction}\nQuery:{text}"
FEW_SHOT = {"max_examples": 2, "max_tokens": 500, "max_query_tokens": 9, "max_response_tokens": 5}
ROWS = [Row(f"{number} {query}", (f"{number} {DOCUMENTS[0]}",)) for number, query in enumerate(QUERIES)]
KINDS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "bare": ({}, {}),
    "prefixes": ({"query": "query: {text}", "document": "passage: {text}"}, {}),
    "instruction": ({"query": INSTRUCTED}, {"instruction": "find the answer"}),
    "instruction on both sides": (
        {"query": INSTRUCTED, "document": "{instruction}|{text}"},
        {"instruction": "answer"},
    ),
    "own templates": (
        {"query": "query: {text}"},
        {"query": "question:{text}", "document": "title: none | text:{text}"},
    ),
    "symmetric": ({"query": INSTRUCTED}, {"instruction": "the same meaning", "symmetric": True}),
    "end token in the template": ({"query": "query: {text}</s>", "document": "{text}</s>"}, {}),
    "few-shot": (
        {},
        {"query": "{examples}" + INSTRUCTED, "instruction": "find the answer", "few_shot": FEW_SHOT},
    ),
}
REFUSED = {
    ("pool_instruction", ("prefixes", "own templates", "end token in the template")): "ends in a space",
    ("append_eos", ("end token in the template",)): "encoder.append_eos puts an end token after it",
}
TEXTS = [*QUERIES, *DOCUMENTS, "a", "naïve\n日本"]
SETTINGS = ({}, {"append_eos": True}, {"pool_instruction": False})


def make(
    place: Path, kind: str, **settings: object
) -> tuple[Encoder, dict[str, SourcePrompts], SentenceEmbedder]:
    """An encoder, the prompts of its one source, and its export in sentence-transformers."""
    texts, source = KINDS[kind]
    encoder = tiny_encoder(place / "base", text=FMT.model_copy(update=texts), **settings)
    how = source_text(encoder.spec.text, Source.model_validate({"rows": "x"} | source))
    examples = {2: prompt_examples(ROWS, 2, 7, "faq", how, encoder.tokenizer)} if how.few_shot else {}
    sources = {"faq": SourcePrompts(how, ("FAQ",), examples)}
    export_encoder(encoder, place / "model", sources=sources)
    return encoder, sources, open_sentence_transformer(place / "model")


def training_ids(encoder: Encoder, formatted: Sequence[Formatted]) -> list[list[int]]:
    """Token ids as collate and mining make them."""
    return ids_of(encoder.tokenize(formatted, LIMIT))


def collated_ids(encoder: Encoder, how: SourceText, side: str) -> list[list[int]]:
    """Token ids of the texts on this side of a training batch."""
    rows = [Row(text, (text,)) for text in TEXTS]
    collation = Collation("faq", rows, how, encoder.tokenizer, encoder.spec.pool_instruction, 0, seed=7)
    batch = collate(rows, range(len(rows)), range(len(rows)), 0, collation)
    return ids_of(batch.queries if side == "query" else batch.documents)


def their_ids(theirs: SentenceEmbedder, texts: Sequence[str], prompt: str) -> list[list[int]]:
    features = theirs.model.preprocess(list(texts), prompt=theirs.model.prompts[prompt])
    pairs = zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
    return [row[mask].tolist() for row, mask in pairs]


def written(how: SourceText, texts: Sequence[str], side: str, examples: str = "") -> list[Formatted]:
    """Texts as training writes them."""
    if side == "query":
        return [format_query(how, text, examples=examples) for text in texts]
    return [format_document(how, text, 1) for text in texts]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "end token", "prompt outside the pool"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_vectors_are_those_of_training(
    tmp_path: Path, kind: str, settings: dict[str, object]
) -> None:
    for (key, kinds), message in REFUSED.items():
        if key in settings and kind in kinds:
            with pytest.raises(UserError, match=message):
                make(tmp_path, kind, **settings)
            return
    encoder, sources, theirs = make(tmp_path, kind, **settings)
    source = sources["faq"]
    how = source.text
    cases = [("query", "", "FAQ"), ("document", "", "FAQ" if how.symmetric else "FAQ-document")]
    cases += [("query", examples, f"faq_{number}_shot") for number, examples in source.examples.items()]
    for side, examples, name in cases:
        formatted = written(how, TEXTS, side, examples)
        ids = training_ids(encoder, formatted)
        assert ids == their_ids(theirs, TEXTS, name)
        if not how.few_shot:
            assert ids == collated_ids(encoder, how, side)
        assert len({tuple(row) for row in ids}) == len(TEXTS)  # the premise: no limit hides a difference
        vectors = encoder.encode_formatted(formatted, LIMIT)
        shown = theirs.model.encode(TEXTS, prompt_name=name, show_progress_bar=False)
        assert cosine_distances(vectors, shown).max() <= 1e-6
    check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS, sources=sources)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "own templates"])
def test_the_plain_sides_are_encode_query_and_encode_document(tmp_path: Path, kind: str) -> None:
    encoder, _, theirs = make(tmp_path, kind)
    plain = source_text(encoder.spec.text)
    for side, encode in (("query", theirs.model.encode_query), ("document", theirs.model.encode_document)):
        formatted = written(plain, TEXTS, side)
        vectors = encoder.encode_formatted(formatted, LIMIT)
        shown = encode(TEXTS, show_progress_bar=False)
        assert training_ids(encoder, formatted) == their_ids(theirs, TEXTS, side)
        assert cosine_distances(vectors, shown).max() <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_mining_encodes_what_the_folder_encodes(tmp_path: Path, kind: str) -> None:
    encoder, sources, theirs = make(tmp_path, kind)
    how = sources["faq"].text
    mining = encoder.with_templates(how.query, how.document)
    assert mining.format(TEXTS, "query", how.instruction) == written(how, TEXTS, "query")
    side = "query" if how.symmetric else "document"
    assert mining.format(TEXTS, side, how.instruction) == written(how, TEXTS, "document")
    writer = SourceWriter(encoder, "w", "t", encoder.spec.text, seed=7)
    source = Source.model_validate({"rows": "x"} | KINDS[kind][1])
    corpus = Corpus(np.array([text_key(text) for text in TEXTS]), TEXTS, len(TEXTS))
    rows = store_rows([Row(text, ("answer",)) for text in TEXTS], tmp_path / "rows")
    inquiry = Inquiry("faq", source, rows, corpus, tmp_path / "work", Processes(0, 1))
    ready = VectorJudge("base", writer, Means(tmp_path / "vectors", 999)).read(inquiry)
    named = ((ready.queries_QD, "FAQ"), (ready.documents_WD, "FAQ" if how.symmetric else "FAQ-document"))
    for vectors, name in named:
        shown = theirs.model.encode(TEXTS, prompt_name=name, show_progress_bar=False)
        assert cosine_distances(vectors, shown).max() <= 1e-6


def test_prompts_by_name(tmp_path: Path) -> None:
    """Sources' names, mteb's task keys, examples; names that say nothing new are left out."""
    encoder = tiny_encoder(tmp_path / "base", text=FMT.model_copy(update={"query": INSTRUCTED}))
    values: dict[str, dict[str, object]] = {
        "faq": {"instruction": "find the answer"},
        "plain": {},
        "sts": {"instruction": "the same", "symmetric": True},
        "titles": {"query": "question:{text}", "document": "title: none | text:{text}"},
    }
    tasks = {"faq": ("NFCorpus",), "sts": ("STS12", "STS13"), "titles": ()}
    sources = source_prompts(encoder, values)
    sources = {name: replace(source, tasks=tasks.get(name, ())) for name, source in sources.items()}
    export_encoder(encoder, tmp_path / "model", sources=sources)
    same = "Instruct: the same\nQuery:"
    assert read_json(tmp_path / "model/config_sentence_transformers.json")["prompts"] == {
        "query": "Instruct: \nQuery:",
        "document": "",
        "faq": "Instruct: find the answer\nQuery:",
        "NFCorpus": "Instruct: find the answer\nQuery:",
        "NFCorpus-query": "Instruct: find the answer\nQuery:",
        "NFCorpus-document": "",
        "sts": same,
        "STS12": same,
        "STS13": same,
        "titles": "question:",
        "titles_document": "title: none | text:",
    }
    found = check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS, sources=sources)
    alike = {"prompt 'NFCorpus'", "prompt 'NFCorpus-query'", "prompt 'NFCorpus-document'"}
    alike |= {"prompt 'STS12'", "prompt 'STS13'"}
    assert not alike & found["compared"].keys()
    assert len(found["compared"]) == 6


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            {"faq": {"query": "{text} response:"}},
            "a sentence-transformers folder holds prefixes only, and the templates end in '' (query) and "
            "' response:' (faq)",
        ),
        (
            {"faq": {"document": "{text}</s>"}},
            "the templates end in '' (query) and '</s>' (faq_document)",
        ),
        (
            {"faq": {"query": "a:{text}"}, "sts": {"query": "b:{text}"}},
            "prompt 'STS12' is another source's or side's already, and differs: 'a:' and 'b:'; rename one",
        ),
        (
            {"query": {"query": "a:{text}"}},
            "source 'query': its prompt 'query' is another source's or side's",
        ),
    ],
)
def test_what_a_folder_cannot_say_is_refused(
    tmp_path: Path, sources: dict[str, dict[str, object]], message: str
) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=FMT)
    with pytest.raises(UserError) as error:
        export_encoder(encoder, tmp_path / "model", sources=source_prompts(encoder, sources, ("STS12",)))
    assert message in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_damaged_prompt_is_found(tmp_path: Path) -> None:
    encoder, sources, _ = make(tmp_path, "few-shot")
    for name in ("FAQ", "FAQ-query", "FAQ-document", "faq", "faq_2_shot"):
        path = tmp_path / "model/config_sentence_transformers.json"
        before = path.read_text()
        change_json(path, lambda c, name=name: c["prompts"].update({name: c["prompts"][name] + "!"}))
        message = (
            f"parity: {name} .*token ids differ from position|has the prompt '.*!' for '{name}', training"
        )
        with pytest.raises(UserError, match=message):
            check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS, sources=sources)
        path.write_text(before)
    check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS, sources=sources)


def test_the_longest_limit_is_the_folders(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=FMT)
    limits = {"faq": {"max_query_tokens": 222}, "sts": {"max_document_tokens": 5}}
    sources = source_prompts(encoder, limits)
    export_encoder(encoder, tmp_path / "model", sources=sources)
    assert open_sentence_transformer(tmp_path / "model").model.max_seq_length == 222


def test_evaluation_uses_the_prompts_of_the_task(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=FMT.model_copy(update={"query": "query: {text}"}))
    values = {
        "search": {"query": "question:{text}", "document": "title: none | text:{text}"},
        "same": {"query": "alike:{text}", "symmetric": True},
    }
    sources = source_prompts(encoder, values)
    sources = {name: replace(source, tasks=(name.upper(),)) for name, source in sources.items()}
    export_encoder(encoder, tmp_path / "model", sources=sources)
    embedder = open_sentence_transformer(tmp_path / "model")
    before = {"query": "query: ", "document": "", "": ""}
    prompts = {
        "SEARCH": {"query": "question:", "document": "title: none | text:", "": "question:"},
        "SAME": {"query": "alike:", "document": "alike:", "": "alike:"},
        "OTHER": before,
    }
    assert embedder.for_task("OTHER") is embedder
    for task, expected in prompts.items():
        for side, prompt in expected.items():
            shown = embedder.for_task(task).encode(QUERIES, side=side)
            plain = embedder.encode([prompt + text for text in QUERIES], side="")
            assert cosine_distances(shown, plain).max() <= 1e-6
    remembering = Remembering("tiny", lambda: embedder)
    assert remembering.for_task("OTHER") is remembering
    own = remembering.for_task("SAME")
    assert own is remembering.for_task("SAME")
    remembering.encode(QUERIES, side="query")
    assert np.array_equal(
        own.encode(QUERIES, side="query"), embedder.for_task("SAME").encode(QUERIES, side="query")
    )
