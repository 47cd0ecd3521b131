"""The mine stage on small sources, with an encoder of words and with a real tiny model."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mined_sources import WordEncoder, context_of, make_rows, make_run, mine_with_words, write_sources
from tiny_models import TEXTS, save_tiny

from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.data.store import open_rows, store_rows
from embedtrain.mining.corpus import build_corpus, draw_rows
from embedtrain.mining.given import Given
from embedtrain.mining.judges.opening import open_of_run
from embedtrain.mining.tables import read_corpus, read_mined
from embedtrain.search import dot
from embedtrain.stages import mine, select
from embedtrain.stages.context import StageContext
from embedtrain.text import source_text, written_as_query


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[Row]]:
    return write_sources(tmp_path)


def test_candidates_are_the_nearest_documents(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {}, "two": {"instruction": "find"}}, {"top_k": 9}, {})
    facts, encoder = mine_with_words(run, tmp_path)
    folder = tmp_path / "r" / "mined"
    for name, instruction in (("one", ""), ("two", "find")):
        keys, texts = read_corpus(folder, name)
        assert sorted(texts) == sorted({text for row in rows[name] for text in row.positives})
        assert keys.tolist() == [text_key(text) for text in texts]
        mined = read_mined(folder, name)
        assert mined.query_row_Q.tolist() == list(range(len(rows[name])))
        limits = {"query": run.text.max_query_tokens, "document": run.text.max_document_tokens}
        rest = {"instruction": instruction, "tokens_per_batch": 64, "normalize": True}
        queries = encoder.encode(
            [row.query for row in rows[name]], "query", max_tokens=limits["query"], **rest
        )
        documents = encoder.encode(texts, "document", max_tokens=limits["document"], **rest)
        firsts = []
        for number, row in enumerate(rows[name]):
            scores = dot(queries[number][None], documents)
            order = np.lexsort((np.arange(len(texts)), -scores))
            assert mined.ids_QK[number].tolist() == order[:9].tolist()
            assert mined.ranks_QK[number].tolist() == list(range(1, 10))
            column = mined.columns["base"]
            np.testing.assert_array_equal(column.score_QK[number], scores[order[:9]].astype(np.float32))
            own = [texts.index(text) for text in row.positives]
            np.testing.assert_array_equal(column.positive_scores[number], scores[own].astype(np.float32))
            worst = max(order.tolist().index(document) for document in own)
            firsts.append(worst == 0)
        assert facts[name]["positive_in_top_1"] == round(float(np.mean(firsts)), 4)
        assert facts[name]["retrievers"]["base"]["positive_in_top_1"] == facts[name]["positive_in_top_1"]
    assert "positive_in_top_10" not in facts["one"]
    assert facts["two"]["mined_rows"] == 25


def test_only_new_texts_are_encoded_again(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {}}, {"top_k": 5}, {})
    _, first = mine_with_words(run, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "r" / "mined").glob("*.parquet")}
    assert len(first.encoded) == len({row.query for row in rows["one"]}) + len(
        {text for row in rows["one"] for text in row.positives}
    )
    _, second = mine_with_words(run, tmp_path)
    assert second.encoded == []
    assert {p.name: p.read_bytes() for p in (tmp_path / "r" / "mined").glob("*.parquet")} == before
    write_rows(tmp_path / "one.parquet", [*rows["one"], Row("new query", ("new document",))])
    _, third = mine_with_words(run, tmp_path)
    assert sorted(third.encoded) == ["new document", "new query"]


def test_symmetric_documents_are_formatted_as_queries(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.parquet", [Row("apple pear", ("apple pear",)), Row("river", ("stone",))])
    scores = []
    for number, symmetric in enumerate((True, False)):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = {"rows": str(tmp_path / "one.parquet"), "symmetric": symmetric}
        mine_with_words(make_run(folder, {"one": source}, {}, {}), folder)
        scores.append(read_mined(folder / "r" / "mined", "one").columns["base"].positive_scores[0][0])
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores[1] < 0.99


def test_documents_are_written_as_training_writes_them(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    """A source's own templates, and the query's for the share of documents that has it."""
    values = {
        "query": "apple {text}",
        "document": "river {text}",
        "instructed_documents_fraction": 0.5,
        "instruction": "plum",
    }
    run = make_run(tmp_path, {"one": values}, {"top_k": 3}, {})
    mine_with_words(run, tmp_path)
    how = source_text(run.text, run.sources["one"], run.seed)
    mined = read_mined(tmp_path / "r" / "mined", "one")
    words = WordEncoder().with_templates(how.query, how.document)
    rest = {"instruction": "plum", "max_tokens": 256, "tokens_per_batch": 64, "normalize": True}
    chosen = {"query": 0, "document": 0}
    for number, row in enumerate(rows["one"]):
        side = "query" if written_as_query(how, text_key(row.positives[0])) else "document"
        chosen[side] += 1
        query = words.encode([row.query], "query", **rest)
        document = words.encode([row.positives[0]], side, **rest)
        score = mined.columns["base"].positive_scores[number][0]
        assert score == pytest.approx(dot(query, document).item(), rel=1e-6)
    assert min(chosen.values()) > 5  # the premise: both kinds were mined


def test_rows_and_corpus_are_drawn_with_the_seed(tmp_path: Path) -> None:
    lines = make_rows(50, 3)
    store = store_rows(lines, tmp_path / "store")
    chosen = draw_rows(50, 10, 7, "one")
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 10
    assert draw_rows(50, 10, 7, "one").tolist() == chosen.tolist()
    assert draw_rows(50, 10, 8, "one").tolist() != chosen.tolist()
    assert draw_rows(50, 10, 7, "two").tolist() != chosen.tolist()
    assert draw_rows(50, None, 7, "one").tolist() == draw_rows(50, 50, 7, "one").tolist() == list(range(50))
    wanted = {text_key(text) for number in chosen for text in lines[number].positives}
    for size in (None, 1, 20):
        stage = Mine.model_validate({"name": "m", "kind": "mine", "from": "base", "corpus_size": size})
        corpus = build_corpus(store, chosen, stage, Given(), False, 7, "one")
        assert corpus.num_searched == len(corpus.texts)
        assert wanted <= set(corpus.keys_N.tolist())
        assert len(corpus.texts) == len(set(corpus.texts))
        assert corpus.texts[:] == [corpus.texts[place] for place in range(len(corpus.texts))]
        assert [text_key(text) for text in corpus.texts] == corpus.keys_N.tolist()
        everything = len({text for row in lines for text in row.positives})
        assert len(corpus.texts) == {None: everything, 1: len(wanted), 20: max(20, len(wanted))}[size]
        assert corpus.ids(corpus.keys_N[::-1]).tolist() == list(range(len(corpus.texts)))[::-1]


def test_no_source_to_mine(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {"weight": 0}}, {}, {})
    with pytest.raises(UserError, match="stage 'mined': no rows to read; every source has weight 0"):
        mine_with_words(run, tmp_path)


def test_the_columns_are_those_of_the_docs(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    mine_with_words(make_run(tmp_path, {"one": {}}, {}, {}), tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "mining.md").read_text()
    for name in ("candidates.parquet", "corpus.parquet"):
        for column in pq.read_schema(tmp_path / "r" / "mined" / name).names:
            assert f"`{column.partition('.')[0]}" in page


@pytest.fixture
def tiny_run(tmp_path: Path) -> Run:
    """Sentences of the tiny tokenizer's texts, to be mined with a tiny random model as the base."""
    save_tiny("llama", tmp_path / "model")
    words = " ".join(TEXTS).split()
    rng = np.random.default_rng(0)
    lines = [
        Row(" ".join(rng.choice(words, 5)), (" ".join(rng.choice(words, rng.integers(4, 40))),))
        for _ in range(60)
    ]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {"instruction": "find"}}, {"top_k": 20}, {"rules": []})
    values = run.model_dump(by_alias=True, mode="json")
    values["base"]["model"] = str(tmp_path / "model")
    values["text"]["query"] = "{instruction}: {text}"
    return Run.model_validate(values)


def test_with_a_real_model_from_the_base(tmp_path: Path, tiny_run: Run) -> None:
    context = context_of(tiny_run, "mined", tmp_path)
    facts = mine.run_stage(context)
    assert facts["sources"]["one"]["documents"] == 60
    encoder = open_of_run(context, "base")
    rows = read_rows(tmp_path / "one.parquet")
    mined = read_mined(context.folder, "one")
    queries = encoder.encode([row.query for row in rows], "query", instruction="find")
    documents = encoder.encode([row.positives[0] for row in rows], "document")
    scores = np.sum(queries * documents, axis=1)
    np.testing.assert_allclose(np.concatenate(mined.columns["base"].positive_scores), scores, atol=1e-5)
    select.run_stage(context_of(tiny_run, "chosen", tmp_path))
    assert all(len(row.negatives) == 7 for row in open_rows(tmp_path / "r" / "chosen" / "rows" / "one"))


KILLED = """
    import sys
    from pathlib import Path
    from embedtrain.config.load import find_stage
    from embedtrain.config.schema import Machine, Run
    from embedtrain.stages import mine
    from embedtrain.stages.context import StageContext

    run = Run.model_validate_json(Path(sys.argv[1]).read_text())
    stage = find_stage(run, "mined")
    mine.run_stage(StageContext(run, stage, Machine(encode_tokens=32), Path(sys.argv[2]), {}))
"""


def files_below(folder: Path) -> dict[str, bytes]:
    paths = [path for pattern in ("*.parquet", "*.npy") for path in folder.rglob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_killed_mine_stage_goes_on_and_ends_byte_identical(tmp_path: Path, tiny_run: Run) -> None:
    """SIGKILL once some shards are on disk; the second try encodes only the rest."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        (folder / "mined.partial").mkdir(parents=True)
    stage, machine = find_stage(tiny_run, "mined"), Machine(encode_tokens=32)
    mine.run_stage(StageContext(tiny_run, stage, machine, whole / "mined.partial", {}))
    num_shards = len(list(whole.rglob("*.keys.npy")))
    assert num_shards > 8

    (tmp_path / "run.json").write_text(tiny_run.model_dump_json(by_alias=True))
    arguments = [textwrap.dedent(KILLED), str(tmp_path / "run.json"), str(killed / "mined.partial")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", *arguments], env=environment)
    while len(list(killed.rglob("*.keys.npy"))) < 4:
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (killed / "mined.partial" / "candidates.parquet").exists()
    finished = {path: path.stat().st_mtime_ns for path in killed.rglob("*.keys.npy")}
    assert 4 <= len(finished) < num_shards

    mine.run_stage(StageContext(tiny_run, stage, machine, killed / "mined.partial", {}))
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    assert files_below(whole) == files_below(killed)
