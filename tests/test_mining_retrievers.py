"""Every kind of retriever in one mine stage: what it finds, and that it scores what the others found."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from endpoint_server import serving, vector_of
from exports import tiny_export
from mined_sources import WORDS, context_of, make_rows, make_run, mine_with_words

from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import Concatenate, ReciprocalRank
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.mining.fusion import fuse
from embedtrain.mining.tables import Mined, read_corpus, read_mined
from embedtrain.model.st import open_sentence_transformer
from embedtrain.search import BM25Index, dot
from embedtrain.stages import mine

TOP_K = 6


def scored_rows(num: int, seed: int = 0) -> list[Row]:
    """Rows with a few stored negatives and scores, of words."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, row in enumerate(make_rows(num, seed)):
        others = [" ".join(rng.choice(WORDS, 3).tolist()) for _ in range(3)]
        negatives = tuple(text for text in dict.fromkeys(others) if text not in row.positives)
        scores = tuple(rng.normal(size=len(negatives)).round(3).tolist()) if number % 2 else None
        rows.append(
            Row(
                row.query,
                row.positives,
                negatives,
                positive_scores=(2.5,) * len(row.positives) if scores else None,
                negative_scores=scores,
            )
        )
    return rows


def mined_of(folder: Path) -> tuple[Mined, list[int], list[str]]:
    keys, texts = read_corpus(folder / "r" / "mined", "one")
    return read_mined(folder / "r" / "mined", "one"), keys.tolist(), texts


def check_column(mined: Mined, name: str, own: list[list[int]], scores_QN: np.ndarray) -> None:
    """Every candidate and positive has the retriever's own score, whoever found it."""
    column = mined.columns[name]
    for line, ids in enumerate(mined.ids_QK):
        there = ids[ids >= 0]
        expected = scores_QN[line].astype(np.float32)
        np.testing.assert_array_equal(column.score_QK[line, : len(there)], expected[there])
        assert np.isnan(column.score_QK[line, len(there) :]).all()
        np.testing.assert_array_equal(column.positive_scores[line], expected[own[line]])


def top(scores_QN: np.ndarray, least: float = -np.inf) -> np.ndarray:
    """ids of the best documents, -1 where a score is not above `least`."""
    order = np.stack([np.lexsort((np.arange(len(line)), -line))[:TOP_K] for line in scores_QN])
    return np.where(np.take_along_axis(scores_QN, order, 1) > least, order, -1)


@pytest.mark.parametrize(
    "fusion", [{"kind": "rrf", "k": 3}, {"kind": "concatenate"}, {"kind": "concatenate", "deduplicate": True}]
)
def test_all_kinds_find_and_score(tmp_path: Path, fusion: dict) -> None:
    rows = scored_rows(20)
    write_rows(tmp_path / "one.parquet", rows)
    _, model = tiny_export(tmp_path / "tiny")
    with serving() as server:
        remote = {"kind": "endpoint", "name": "remote", "protocol": "tei", "url": server.url}
        others = [{"kind": "model", "name": "tiny", "model": str(model)}, {"kind": "bm25"}, {"kind": "rows"}]
        stage = {"top_k": TOP_K, "fusion": fusion, "retrievers": [*others, remote]}
        run = make_run(tmp_path, {"one": {}}, stage, {})
        facts, words = mine_with_words(run, tmp_path)
    mined, keys, texts = mined_of(tmp_path)
    expected = {text for row in rows for text in (*row.positives, *row.negatives)}
    assert sorted(texts) == sorted(expected)
    assert keys == [text_key(text) for text in texts]
    queries = [row.query for row in rows]
    limits = {"instruction": "", "max_tokens": 256, "tokens_per_batch": 64, "normalize": True}
    theirs = open_sentence_transformer(model)
    vectors = {
        "base": (words.encode(queries, "query", **limits), words.encode(texts, "document", **limits)),
        "remote": tuple(np.array([vector_of(text) for text in part]) for part in (queries, texts)),
        "tiny": (theirs.encode(queries, side="query"), theirs.encode(texts, side="document")),
    }
    scores = {name: dot(asked[:, None], given[None]) for name, (asked, given) in vectors.items()}
    index = BM25Index(texts)
    scores["bm25"] = np.stack([index.scores(query, np.arange(len(texts))) for query in queries])
    own = [[texts.index(text) for text in row.positives] for row in rows]
    check_column(mined, "base", own, scores["base"])
    check_column(mined, "bm25", own, scores["bm25"])
    stored = np.full((len(rows), TOP_K), -1)
    for line, row in enumerate(rows):
        order = np.argsort(-np.array(row.negative_scores or np.zeros(len(row.negatives))), kind="stable")
        stored[line, : len(order)] = [texts.index(row.negatives[place]) for place in order]
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in vectors["remote"]]
    scores["remote"] = scores["remote"] / (lengths[0] * lengths[1].T)
    np.testing.assert_allclose(mined.columns["remote"].positive_scores[0], scores["remote"][0, own[0]], 1e-5)
    tiny = np.concatenate([scores["tiny"][line, ids] for line, ids in enumerate(own)])
    np.testing.assert_allclose(np.concatenate(mined.columns["tiny"].positive_scores), tiny, atol=1e-6)
    lists = [
        top(scores["base"]),
        top(scores["tiny"]),
        top(scores["bm25"], 0.0),
        stored,
        top(scores["remote"]),
    ]
    ids_QL, ranks_QL = fuse(run.stages[0].fusion, lists)
    np.testing.assert_array_equal(mined.ids_QK, ids_QL)
    np.testing.assert_array_equal(mined.ranks_QK, ranks_QL)
    told = facts["one"]["retrievers"]
    assert list(told) == ["base", "tiny", "bm25", "rows", "remote"]
    assert told["tiny"]["texts_encoded"] == len(texts) + len(set(queries))


def test_stored_scores_stand_where_the_rows_have_them(tmp_path: Path) -> None:
    rows = scored_rows(9)
    write_rows(tmp_path / "one.parquet", rows)
    run = make_run(tmp_path, {"one": {}}, {"top_k": 3, "from": None, "retrievers": [{"kind": "rows"}]}, {})
    facts = mine.run_stage(context_of(run, "mined", tmp_path))["sources"][
        "one"
    ]  # opens no model: there is none
    assert facts["retrievers"] == {"rows": {"positive_in_top_1": 0.0}}
    mined, _, texts = mined_of(tmp_path)
    for line, row in enumerate(rows):
        column = mined.columns["rows"]
        ids = mined.ids_QK[line][mined.ids_QK[line] >= 0]
        assert sorted(texts[document] for document in ids) == sorted(row.negatives)
        known = dict(zip(row.negatives, row.negative_scores or (), strict=False))
        told = column.score_QK[line, : len(ids)]
        expected = [known.get(texts[document], np.nan) for document in ids]
        np.testing.assert_array_equal(told, np.array(expected, np.float32))
        assert list(told) == sorted(told, reverse=True) or np.isnan(told).all()
        first = column.positive_scores[line][0]
        assert first == 2.5 if row.positive_scores else np.isnan(first)


def test_a_given_corpus_alone_is_searched_and_positives_are_scored(tmp_path: Path) -> None:
    rows = make_rows(12, 4)
    write_rows(tmp_path / "one.parquet", rows)
    lines = [*(" ".join(pair) for pair in pairwise(WORDS)), rows[0].positives[0]]
    (tmp_path / "given.txt").write_text("\n".join(lines))
    stage = {"top_k": 4, "own_texts": False, "corpus": [str(tmp_path / "given.txt")]}
    stage["retrievers"] = [{"kind": "bm25"}]
    facts, words = mine_with_words(make_run(tmp_path, {"one": {}}, stage, {}), tmp_path)
    mined, _, texts = mined_of(tmp_path)
    assert texts[: len(lines)] == lines
    assert facts["one"]["documents"] == len(lines)
    assert mined.ids_QK.max() < len(lines)
    assert set(texts) == {*lines, *(row.positives[0] for row in rows)}
    limits = {"instruction": "", "max_tokens": 256, "tokens_per_batch": 64, "normalize": True}
    queries = words.encode([row.query for row in rows], "query", **limits)
    scores = dot(queries[:, None], words.encode(texts, "document", **limits)[None])
    check_column(mined, "base", [[texts.index(row.positives[0])] for row in rows], scores)


def test_both_corpora_hold_a_text_once_and_symmetric_queries(tmp_path: Path) -> None:
    rows = scored_rows(10)
    write_rows(tmp_path / "one.parquet", rows)
    (tmp_path / "given.txt").write_text(f"something new\n{rows[0].positives[0]}\n")
    stage = {"top_k": 4, "corpus": [str(tmp_path / "given.txt")]}
    mine_with_words(make_run(tmp_path, {"one": {"symmetric": True}}, stage, {}), tmp_path)
    _, _, texts = mined_of(tmp_path)
    own = {text for row in rows for text in (row.query, *row.positives, *row.negatives)}
    assert sorted(texts) == sorted(own | {"something new"})
    for size in (1, len(own) + 1):
        folder = tmp_path / str(size)
        source = {"rows": str(tmp_path / "one.parquet"), "symmetric": True}
        mine_with_words(make_run(folder, {"one": source}, stage | {"corpus_size": size}, {}), folder)
        assert set(mined_of(folder)[2]) >= own


def test_an_empty_corpus(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.parquet", make_rows(5, 0))
    (tmp_path / "given.txt").write_text("\n")
    stage = {"own_texts": False, "corpus": [str(tmp_path / "given.txt")]}
    with pytest.raises(UserError, match="stage 'mined': no documents to search for source 'one'"):
        mine_with_words(make_run(tmp_path, {"one": {}}, stage, {}), tmp_path)


def test_vectors_of_half_the_size(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.parquet", make_rows(30, 2))
    _, model = tiny_export(tmp_path / "tiny")
    retriever = {"kind": "model", "name": "tiny", "model": str(model)}
    scores = {}
    for precision in ("float32", "float16"):
        folder = tmp_path / precision
        source = {"rows": str(tmp_path / "one.parquet")}
        stage = {"from": None, "retrievers": [retriever], "top_k": 5, "vector_precision": precision}
        mine.run_stage(context_of(make_run(folder, {"one": source}, stage, {}), "mined", folder))
        kinds = {str(np.load(path).dtype) for path in folder.rglob("*.vectors.npy")}
        assert kinds == {precision}
        scores[precision] = np.concatenate(mined_of(folder)[0].columns["tiny"].positive_scores)
    np.testing.assert_allclose(scores["float16"], scores["float32"], atol=2e-3)
    assert (scores["float16"] != scores["float32"]).any()


def test_fusions_are_those_of_the_run_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"one": {}}, {"fusion": {"kind": "concatenate"}}, {})
    assert isinstance(run.stages[0].fusion, Concatenate)
    assert isinstance(make_run(tmp_path, {"one": {}}, {}, {}).stages[0].fusion, ReciprocalRank)
