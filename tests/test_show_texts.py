"""`embedtrain show --texts`: the strings and ids of training, with what is cut."""

import ast
import re
from pathlib import Path

import pytest
from tiny_models import TEXTS, save_tiny
from token_ids import ids_of

from embedtrain.collate import Collation, collate
from embedtrain.config.schema import Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.model.load import load_encoder
from embedtrain.stages.show_texts import show_texts
from embedtrain.text import source_text

SOURCES = {
    "plain": {"query": "query: {text}", "max_document_tokens": 12},
    "shots": {
        "query": "{examples}Instruct: {instruction}\nQuery:{text}",
        "instruction": "find it",
        "few_shot": {"min_examples": 2, "max_examples": 2, "max_tokens": 300},
        "max_query_tokens": 400,
    },
    "same": {"symmetric": True, "instruction": "the same meaning"},
    "unused": {"weight": 0.0},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    save_tiny("llama", tmp_path / "model")
    rows = [Row(f"{n} {TEXTS[0]}", (f"{n} {TEXTS[1]}",), tuple(TEXTS[2:])) for n in range(6)]
    write_rows(tmp_path / "rows.parquet", rows)
    stage = {
        "objective": {"terms": [{"kind": "infonce"}]},
        "batch_size": 2,
        "steps": 1,
        "lr": 1e-3,
        "seed": 5,
    }
    return Run.model_validate(
        {
            "name": "r",
            "base": {"model": str(tmp_path / "model")},
            "encoder": {"append_eos": True, "pool_instruction": False},
            "text": {"query": "{instruction}:{text}"},
            "sources": {name: {"rows": str(tmp_path / "rows.parquet")} | v for name, v in SOURCES.items()},
            "stages": [{"name": "t", "kind": "train", "max_query_tokens": 18} | stage],
        }
    )


def printed_ids(shown: str, name: str) -> dict[str, list[list[int]]]:
    """Token ids by role of a source's part of the page."""
    part = re.split(r"\n(?=\w+: the first)", shown)
    lines = next(text for text in part if text.startswith(f"{name}: ")).splitlines()
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(lines):
        if role := re.match(r"    (query|positive|negative): ", line):
            found.setdefault(role[1], []).append([int(i) for i in lines[number + 2].split()])
    return found


def test_ids_are_those_of_the_batches(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_texts(run, 3)
    shown = capsys.readouterr().out
    encoder = load_encoder(run.base, run.encoder, run.text)
    for name in ("plain", "shots", "same"):
        rows = [Row(f"{n} {TEXTS[0]}", (f"{n} {TEXTS[1]}",), tuple(TEXTS[2:4])) for n in range(6)]
        fmt = encoder.spec.text.model_copy(update={"max_query_tokens": 18})
        how = Collation(
            name=name,
            rows=rows,
            text=source_text(fmt, run.sources[name], run.seed),
            tokenizer=encoder.tokenizer,
            pool_instruction=False,
            num_negatives=2,
            seed=5,
        )
        batch = collate(rows[:3], range(3), range(3), 0, how)
        ids = printed_ids(shown, name)
        sides = ((batch.queries, ids["query"]), (batch.documents, []))
        for number in range(3):
            sides[1][1].append(ids["positive"][number])
            sides[1][1].extend(ids["negative"][2 * number : 2 * number + 2])
        for tokens, expected in sides:
            assert ids_of(tokens) == expected
    assert "unused" not in shown


def test_what_is_cut_is_marked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_texts(run, 1)
    shown = capsys.readouterr().out
    assert "special tokens around every text: 'text </s>' (a cut text keeps them)" in shown
    assert "pooled: the tokens of the text, without what stands before it" in shown
    lines = shown.splitlines()
    place = next(i for i, line in enumerate(lines) if "positive: " in line and "CUT" in line)
    counts = re.search(r"(\d+) of at most 12 tokens, CUT: (\d+) tokens, (\d+) characters lost", lines[place])
    assert counts is not None
    text, mark = lines[place + 1].strip().rsplit(" ", 1)
    seen, whole = ast.literal_eval(text), f"0 {TEXTS[1]}"
    assert mark == "…"
    assert whole.startswith(seen)
    assert len(whole) - len(seen) == int(counts[3])
    encoder = load_encoder(run.base, run.encoder, run.text)
    tokens = encoder.tokenizer.encode(whole, add_special_tokens=False)
    assert len(tokens.ids) - int(counts[2]) == 11  # and the end token
    assert lines[place + 2].split() == [str(i) for i in [*tokens.ids[:11], 2]]
    assert int(counts[1]) == 12


def test_more_rows_than_there_are(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_texts(run, 100)
    assert f"same: the first 6 of 6 rows of {run.sources['same'].rows}" in capsys.readouterr().out
