"""The mine and select stages on small sources, with a word encoder and with a real tiny model."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXTS, save_tiny
from word_embedder import WordEmbedder

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Mine
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.mining.corpus import build_corpus, draw_rows, known_positives
from embedtrain.mining.retrieve import Retriever
from embedtrain.mining.tables import read_corpus, read_mined
from embedtrain.search import dot
from embedtrain.stages import mine, select
from embedtrain.stages.context import StageContext

WORDS = ["apple", "pear", "plum", "train", "plane", "river", "stone", "cloud", "paper", "glass"]


class WordEncoder:
    """A `TextEncoder` over words; the side, the instruction and the token limit change the vector."""

    dim = 24

    def __init__(self) -> None:
        self.words = WordEmbedder(self.dim)
        self.encoded: list[str] = []

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        self.encoded += texts
        cut = [" ".join(text.split()[:max_tokens]) for text in texts]
        lead = "asked " if side == "query" else ""
        return self.words.encode([f"{lead}{instruction} {text}" for text in cut], side=side)


def make_rows(num: int, seed: int, num_positives: int = 1) -> list[Row]:
    """Queries of a few words, and positives that share two of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num):
        query = rng.choice(WORDS, rng.integers(2, 7)).tolist()
        others = [rng.choice(WORDS, rng.integers(1, 5)).tolist() for _ in range(num_positives)]
        positives = dict.fromkeys(" ".join(query[:2] + words) for words in others)
        rows.append(Row(" ".join(query), tuple(positives)))
    return rows


def make_run(folder: Path, sources: dict[str, dict], mined: dict, chosen: dict) -> Run:
    return Run.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "base": {"model": "none"},
            "sources": {
                name: {"rows": str(folder / f"{name}.parquet")} | values for name, values in sources.items()
            },
            "stages": [
                {"name": "mined", "kind": "mine", "from": "base"} | mined,
                {"name": "chosen", "kind": "select", "candidates": "mined"} | chosen,
            ],
        }
    )


def context_of(run: Run, stage: str, folder: Path) -> StageContext:
    inputs = {"mined": folder / "r" / "mined"} if stage == "chosen" else {}
    place = folder / "r" / stage
    place.mkdir(parents=True, exist_ok=True)
    return StageContext(run, find_stage(run, stage), Machine(), place, inputs)


def mine_with_words(run: Run, folder: Path) -> tuple[dict, WordEncoder]:
    context = context_of(run, "mined", folder)
    encoder = WordEncoder()
    retriever = Retriever(
        encoder, "weights", "template", run.text, context.folder.parent / "vectors", 64, "cpu"
    )
    assert isinstance(context.stage, Mine)
    return mine.mine_sources(context, context.stage, retriever), encoder


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[Row]]:
    made = {"one": make_rows(40, 0), "two": make_rows(25, 1, num_positives=3)}
    for name, lines in made.items():
        write_rows(tmp_path / f"{name}.parquet", lines)
    return made


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
        for number, row in enumerate(rows[name]):
            scores = dot(queries[number][None], documents)
            order = np.lexsort((np.arange(len(texts)), -scores))
            assert mined.ids_QK[number].tolist() == order[:9].tolist()
            np.testing.assert_allclose(mined.score_QK[number], scores[order[:9]], rtol=1e-6)
            own = [texts.index(text) for text in row.positives]
            np.testing.assert_allclose(mined.positive_scores[number], scores[own], rtol=1e-6)
            assert mined.positive_score_Q[number] == pytest.approx(scores[own].min(), rel=1e-6)
            rank = max(order.tolist().index(document) for document in own) + 1
            assert mined.positive_rank_Q[number] == (rank if rank <= 9 else 0)
        shares = [facts[name][f"positive_in_top_{top}"] for top in (1,)]
        assert shares == [round(float((mined.positive_rank_Q == 1).mean()), 4)]
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
        scores.append(read_mined(folder / "r" / "mined", "one").positive_score_Q[0])
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores[1] < 0.99


@pytest.mark.parametrize("rule", ["perc_pos", "margin_pos", "absolute", "naive"])
def test_selected_rows(tmp_path: Path, rows: dict[str, list[Row]], rule: str) -> None:
    chosen = {"rule": {"kind": rule}, "num_negatives": 3, "require_positive_in_top": 28, "first_rank": 2}
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"top_k": 30}, chosen)
    mine_with_words(run, tmp_path)
    facts = select.run_stage(context_of(run, "chosen", tmp_path))
    folder = tmp_path / "r" / "chosen"
    assert facts["sources"] == read_json(folder / "reasons.json")
    for name in ("one", "two"):
        mined = read_mined(tmp_path / "r" / "mined", name)
        kept = read_rows(folder / "rows" / f"{name}.parquet")
        stay = [n for n in range(len(rows[name])) if 1 <= mined.positive_rank_Q[n] <= 28]
        assert [row.query for row in kept] == [rows[name][n].query for n in stay]
        assert 0 < len(kept) < len(rows[name])
        counts = facts["sources"][name]
        assert counts["candidates"]["kept"] == sum(len(row.negatives) for row in kept) > 0
        assert sum(counts["candidates"].values()) == mined.ids_QK.size
        assert counts["rows"]["dropped"] == len(rows[name]) - len(kept)
        assert sum(counts["rows"].values()) == len(rows[name])
        known = known_positives(rows[name], symmetric=False)
        for row, number in zip(kept, stay, strict=True):
            lowest = min(row.positive_scores)
            assert row.positives == rows[name][number].positives
            assert lowest == pytest.approx(mined.positive_score_Q[number])
            assert list(row.negative_scores) == sorted(row.negative_scores, reverse=True)
            assert not {text_key(text) for text in row.negatives} & known[text_key(row.query)]
            assert row.query not in row.negatives
            bound = {"perc_pos": 0.95 * lowest, "margin_pos": lowest - 0.05, "absolute": 0.7, "naive": 9}
            assert all(score < bound[rule] for score in row.negative_scores if lowest > 0)


def test_the_page_of_examples_shows_kept_and_refused(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {}}, {"top_k": 15}, {"num_negatives": 2})
    mine_with_words(run, tmp_path)
    select.run_stage(context_of(run, "chosen", tmp_path))
    page = (tmp_path / "r" / "chosen" / "examples.md").read_text()
    assert page.startswith("# one\n")
    assert page.count("## row ") == page.count("**query** ") == 5
    for word in ("- kept, rank ", "- perc_pos, rank ", "- same_as_positive, rank ", "must stay below 0."):
        assert word in page
    assert "not_needed" not in page


def test_another_rows_positive_for_the_same_query_is_never_a_negative(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("plum one",)), Row(" apple pear ", ("apple two",)), Row("river", ("pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {}}, {}, {"rule": {"kind": "naive"}})
    mine_with_words(run, tmp_path)
    select.run_stage(context_of(run, "chosen", tmp_path))
    kept = read_rows(tmp_path / "r" / "chosen" / "rows" / "one.parquet")
    assert [row.negatives for row in kept[:2]] == [("pear",), ("pear",)]


def test_in_a_symmetric_source_a_positives_query_is_never_its_negative(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("plum",)), Row("plum", ("stone",)), Row("river", ("apple pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {"symmetric": True}}, {}, {"rule": {"kind": "naive"}})
    mine_with_words(run, tmp_path)
    select.run_stage(context_of(run, "chosen", tmp_path))
    kept = read_rows(tmp_path / "r" / "chosen" / "rows" / "one.parquet")
    assert kept[1].negatives == ()  # stone is its positive, plum itself, and it is a positive of apple pear


texts = st.sampled_from(["a", "b", "c", "a ", " b", "d e", "e d", "c c"])


@settings(max_examples=40, deadline=None)
@given(
    made=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=10),
    symmetric=st.booleans(),
    max_rows=st.none() | st.integers(1, 6),
)
def test_never_a_known_positive_or_equal_text(tmp_path_factory, made, symmetric, max_rows) -> None:
    folder = tmp_path_factory.mktemp("never")
    lines = [Row(query, tuple(positives)) for query, positives in made]
    write_rows(folder / "one.parquet", lines)
    chosen = {"rule": {"kind": "naive"}}
    mined = {"top_k": 4} | ({"max_rows": max_rows} if max_rows else {})
    run = make_run(folder, {"one": {"symmetric": symmetric}}, mined, chosen)
    mine_with_words(run, folder)
    select.run_stage(context_of(run, "chosen", folder))
    for row in read_rows(folder / "r" / "chosen" / "rows" / "one.parquet"):
        banned = {row.query.strip()}
        banned |= {p.strip() for q, ps in made for p in ps if q.strip() == row.query.strip()}
        if symmetric:
            banned |= {q.strip() for q, ps in made if row.query.strip() in {p.strip() for p in ps}}
        assert not {text.strip() for text in row.negatives} & banned
        assert len({text.strip() for text in row.negatives}) == len(row.negatives)


def test_rows_and_corpus_are_drawn_with_the_seed() -> None:
    lines = make_rows(50, 3)
    chosen = draw_rows(50, 10, 7, "one")
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 10
    assert draw_rows(50, 10, 7, "one").tolist() == chosen.tolist()
    assert draw_rows(50, 10, 8, "one").tolist() != chosen.tolist()
    assert draw_rows(50, 10, 7, "two").tolist() != chosen.tolist()
    assert draw_rows(50, None, 7, "one").tolist() == draw_rows(50, 50, 7, "one").tolist() == list(range(50))
    wanted = {text_key(text) for number in chosen for text in lines[number].positives}
    for size in (None, 1, 20):
        corpus = build_corpus(lines, chosen, size, 7, "one")
        assert wanted <= set(corpus.keys_N.tolist())
        assert len(corpus.texts) == len(set(corpus.texts))
        assert [text_key(text) for text in corpus.texts] == corpus.keys_N.tolist()
        everything = len({text for row in lines for text in row.positives})
        assert len(corpus.texts) == {None: everything, 1: len(wanted), 20: max(20, len(wanted))}[size]
        assert corpus.ids(corpus.keys_N[::-1]).tolist() == list(range(len(corpus.texts)))[::-1]


def test_ranks_beyond_the_mined_ones_are_refused(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    for key in ("require_positive_in_top", "first_rank"):
        run = make_run(tmp_path, {"one": {}}, {"top_k": 10}, {key: 20})
        with pytest.raises(UserError) as error:
            select.run_stage(context_of(run, "chosen", tmp_path))
        assert str(error.value) == (
            f"stage 'chosen' > {key}: 20, but stage 'mined' keeps 10 candidates a row; "
            "lower it, or raise top_k there"
        )


def test_a_source_that_loses_all_rows_is_an_error(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("river stone",)), Row("river stone", ("apple pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {}}, {}, {"require_positive_in_top": 1})
    mine_with_words(run, tmp_path)
    with pytest.raises(UserError) as error:
        select.run_stage(context_of(run, "chosen", tmp_path))
    assert str(error.value) == (
        "stage 'chosen' > require_positive_in_top: 1 drops all 2 rows of source 'one'; "
        "raise it, or mine with a better model"
    )


def test_a_poor_yield_is_said(tmp_path: Path, rows: dict[str, list[Row]], capsys) -> None:
    chosen = {"rule": {"kind": "absolute", "ceiling": -0.9}}
    run = make_run(tmp_path, {"one": {}}, {"top_k": 10}, chosen)
    mine_with_words(run, tmp_path)
    facts = select.run_stage(context_of(run, "chosen", tmp_path))
    counts = facts["sources"]["one"]["candidates"]
    assert counts["kept"] == 0
    assert (
        "source 'one': 40 of 40 rows got no negative; the rule absolute refused "
        f"{counts['absolute'] / 400:.0%} of their candidates. An untrained model scores all texts alike: "
        "mine with a trained stage, raise top_k, or loosen the rule"
    ) in capsys.readouterr().out
    generous = make_run(tmp_path, {"one": {}}, {"top_k": 10}, {"rule": {"kind": "naive"}})
    select.run_stage(context_of(generous, "chosen", tmp_path))
    assert "got no negative" not in capsys.readouterr().out


def test_rows_that_shrank_since_are_refused(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {}}, {}, {})
    mine_with_words(run, tmp_path)
    write_rows(tmp_path / "one.parquet", rows["one"][:10])
    with pytest.raises(UserError, match=r"one\.parquet: 10 rows, but stage 'mined' mined row number 39; "):
        select.run_stage(context_of(run, "chosen", tmp_path))


def test_no_source_to_mine(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {"weight": 0}}, {}, {})
    with pytest.raises(UserError, match="stage 'mined': no source to mine; every source has weight 0"):
        mine_with_words(run, tmp_path)


def test_the_columns_are_those_of_the_docs(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    mine_with_words(make_run(tmp_path, {"one": {}}, {}, {}), tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "mining.md").read_text()
    for name in ("candidates.parquet", "corpus.parquet"):
        for column in pq.read_schema(tmp_path / "r" / "mined" / name).names:
            assert f"`{column}`" in page


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
    run = make_run(tmp_path, {"one": {"instruction": "find"}}, {"top_k": 20}, {"rule": {"kind": "naive"}})
    values = run.model_dump(by_alias=True, mode="json")
    values["base"]["model"] = str(tmp_path / "model")
    values["text"]["query"] = "{instruction}: {text}"
    return Run.model_validate(values)


def test_with_a_real_model_from_the_base(tmp_path: Path, tiny_run: Run) -> None:
    context = context_of(tiny_run, "mined", tmp_path)
    facts = mine.run_stage(context)
    assert facts["sources"]["one"]["documents"] == 60
    encoder = mine.open_model(context, context.stage)
    rows = read_rows(tmp_path / "one.parquet")
    mined = read_mined(context.folder, "one")
    queries = encoder.encode([row.query for row in rows], "query", instruction="find")
    documents = encoder.encode([row.positives[0] for row in rows], "document")
    scores = np.sum(queries * documents, axis=1)
    np.testing.assert_allclose(mined.positive_score_Q, scores, atol=1e-5)
    select.run_stage(context_of(tiny_run, "chosen", tmp_path))
    assert all(
        len(row.negatives) == 7 for row in read_rows(tmp_path / "r" / "chosen" / "rows" / "one.parquet")
    )


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
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
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
