"""Which texts are learned and how they are written, against sets that are filled one text at a time."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from distilling import all_texts, collect, context_of, faq, keys_of, make_context, make_run
from tiny_models import save_tiny

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.model.encoder import Encoder
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_start
from embedtrain.text import Formatted, format_document, format_query, source_text
from embedtrain.train.taught import SIDES, Written

Writing = tuple[str, str, tuple[int, ...], int]
"""Side, text, token ids, number of the first pooled token."""
FEW_SHOT = {"min_examples": 0, "max_examples": 1, "max_tokens": 8, "example": "{query}{response}"}
SOURCES: dict[str, dict] = {
    "faq": {"instruction": "Find", "query": "{instruction}: {text}", "instructed_documents_fraction": 0.5},
    "pairs": {"symmetric": True, "max_query_tokens": 9},
    "shown": {"query": "{examples}? {text}", "few_shot": FEW_SHOT},
}
PAIRS = [Row(f"one side {n}", (f"other side {n}",), instruction="Own" if n % 2 else None) for n in range(9)]


def several(folder: Path, **stage: object) -> StageContext:
    """Three sources written in three ways, with texts in common, and a file and a folder of texts."""
    save_tiny("bert", folder / "base", seed=3)
    rows = faq()
    negatives = [Row(row.query, row.positives, (rows[n - 1].positives[0],)) for n, row in enumerate(rows)]
    write_rows(folder / "faq.parquet", [row for row in negatives if row.negatives[0] not in row.positives])
    write_rows(folder / "pairs.parquet", PAIRS)
    write_rows(folder / "shown.parquet", [*PAIRS[:2], Row(rows[0].query, rows[1].positives)])
    (folder / "more").mkdir()
    (folder / "more" / "a.txt").write_text(f"a line\n{rows[2].positives[0]}\nanother line\n")
    with gzip.open(folder / "more" / "b.jsonl.gz", "wt") as file:
        file.write('{"title": "T", "text": "an object"}\n')
    (folder / "one.txt").write_text(f"one side 0\n{rows[1].query}\n")
    texts = [str(folder / "more"), str(folder / "one.txt")]
    return context_of(make_run(folder, SOURCES, texts=texts, **stage))


def expected_writings(context: StageContext, encoder: Encoder, negatives: bool) -> set[Writing]:
    """Row after row and text after text."""
    writings: set[Writing] = set()
    fmt = encoder.spec.text

    def add(side: str, text: str, formatted: Formatted, limit: int) -> None:
        tokens = encoder.tokenize([formatted], limit)
        writings.add((side, text, tuple(tokens.ids_P.tolist()), int(tokens.first_T)))

    folder = Path(context.run.folder)
    for name, source in context.run.sources.items():
        how = source_text(fmt, source, context.run.seed)
        for row in read_rows(folder / f"{name}.parquet"):
            own = row.instruction
            add("query", row.query, format_query(how, row.query, own), how.max_query_tokens)
            for text in (*row.positives, *(row.negatives if negatives else ())):
                if source.symmetric:
                    add("query", text, format_query(how, text, own), how.max_query_tokens)
                else:
                    written = format_document(how, text, text_key(text), own)
                    add("document", text, written, how.max_document_tokens)
    plain = source_text(fmt)
    rows = faq()
    given = ["a line", rows[2].positives[0], "another line", "T an object", "one side 0", rows[1].query]
    for text in given:
        add("document", text, format_document(plain, text, text_key(text)), plain.max_document_tokens)
    return writings


def found_writings(written: Written) -> list[Writing]:
    """What lies in the files."""
    arrays, found = written.arrays, []
    for place in range(len(written.lengths_W)):
        tokens = written.tokens(np.array([place]))
        side = SIDES[arrays["sides"][place]]
        text = written.texts(side)[int(arrays["rows"][place])]
        found.append((side, text, tuple(tokens.ids_P.tolist()), int(tokens.first_T)))
    return found


@pytest.mark.parametrize("negatives", [False, True])
def test_each_text_in_each_way_it_is_written_once(tmp_path: Path, negatives: bool) -> None:
    context = several(tmp_path, negatives=negatives)
    expected = expected_writings(context, open_start(context), negatives)
    written = collect(context)
    found = found_writings(written)
    assert len(found) == len(set(found))
    assert {(side, text) for side, text, *_ in found} == {(side, text) for side, text, *_ in expected}
    assert set(found) == expected
    assert written.facts["texts"] + 16 == len({text_key(text) for _, text, *_ in expected})
    assert sum(side == "query" for side, *_ in found) > len(written.texts("query"))  # two templates
    assert len(written.texts("query")) == len(keys_of([text for side, text, *_ in found if side == "query"]))


def test_what_is_validated_on_is_nowhere_in_training(tmp_path: Path) -> None:
    written = collect(several(tmp_path))
    found = found_writings(written)
    training = {text_key(found[place][1]) for place in written.training}
    held_out = {text_key(found[place][1]) for place in written.held_out}
    assert len(held_out) == 16
    assert training.isdisjoint(held_out)
    both_sides = {text_key(text) for side, text, *_ in found if side == "query"} & {
        text_key(text) for side, text, *_ in found if side == "document"
    }
    assert both_sides & held_out  # some of them are there twice, on either side
    assert len(written.training) + len(written.held_out) == len(found)


def test_the_seed_draws_them_and_nothing_else(tmp_path: Path) -> None:
    def held(name: str, seed: int, **stage: object) -> set[int]:
        written = collect(make_context(tmp_path, name, **stage), seed)
        found = found_writings(written)
        return {text_key(found[place][1]) for place in written.held_out}

    assert held("a", 7) == held("b", 7)
    assert held("a", 7) != held("c", 8)
    fewer = collect(make_context(tmp_path, "d", max_texts=20), 7)
    assert fewer.facts["texts"] == 20
    assert len({text_key(found_writings(fewer)[place][1]) for place in fewer.training}) == 20
    assert held("d", 7, max_texts=20) == held("a", 7)


def test_texts_alone_without_a_source(tmp_path: Path) -> None:
    make_context(tmp_path)
    (tmp_path / "lines.txt").write_text("".join(f"line {n}\n" for n in range(30)))
    run = make_run(tmp_path, {"faq": {"weight": 0}}, texts=[str(tmp_path / "lines.txt")])
    written = collect(context_of(run, "texts-1.partial"))
    assert len(written.texts("query")) == 0
    assert sorted(written.texts("document")) == sorted(f"line {n}" for n in range(30))


def test_too_few_texts_are_told(tmp_path: Path) -> None:
    count = len(keys_of([text for side in all_texts(faq()) for text in side]))
    context = make_context(tmp_path, held_out_texts=count - 7)
    with pytest.raises(UserError) as caught:
        collect(context)
    assert str(caught.value) == (
        f"stage 'leaf': found {count} different texts, expected at least {count + 1}: held_out_texts "
        f"{count - 7} and batch_size 8; give it more, or lower held_out_texts"
    )
    assert collect(make_context(tmp_path, held_out_texts=count - 8)).facts["texts"] == 8


def test_a_text_without_a_token_of_its_own_is_told(tmp_path: Path) -> None:
    make_context(tmp_path)
    save_tiny("llama", tmp_path / "base")  # without an end token, which would be left
    run = make_run(tmp_path, {"faq": {"query": "x x x x x x x x x x x x x\n{text}"}})
    encoder = {"encoder": {"pool_instruction": False}}
    run = type(run).model_validate(run.model_dump(by_alias=True, exclude={"encoder"}) | encoder)
    with pytest.raises(UserError, match=r"source 'faq': no token of 'x x x .* is left to pool within 12"):
        collect(context_of(run))
