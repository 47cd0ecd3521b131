"""Cross-encoders: the scores of sentence-transformers, whatever the batches, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tiny_models import TEXTS, save_tiny
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from embedtrain.artifacts import read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.model.cross_encoder import open_cross_encoder
from embedtrain.model.scorer import batches

PAIRS = [(query, document) for query in TEXTS[:3] for document in (*TEXTS, "", TEXTS[3] * 9)]


def save_reranker(folder: Path, labels: int = 1) -> Path:
    """A tiny random BERT with a head that scores pairs, as transformers saves it."""
    save_tiny("bert", folder)
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(folder, num_labels=labels)
    model = AutoModelForSequenceClassification.from_config(config)
    nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reranker(tmp_path_factory.mktemp("reranker"))


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 100_000])
def test_scores_are_those_of_predict(reranker: Path, tokens_per_batch: int) -> None:
    theirs = CrossEncoder(str(reranker), local_files_only=True)
    ours = open_cross_encoder(str(reranker)).score(PAIRS, tokens_per_batch)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.predict(PAIRS, activation_fn=nn.Identity()), rtol=1e-5, atol=1e-6)
    assert np.ptp(ours) > 0.1  # the scores differ, so their order is told
    in_unit = open_cross_encoder(str(reranker), scale="sigmoid").score(PAIRS, tokens_per_batch)
    np.testing.assert_allclose(in_unit, theirs.predict(PAIRS, activation_fn=nn.Sigmoid()), rtol=1e-5)


def test_saved_by_sentence_transformers_and_by_transformers_alike(reranker: Path, tmp_path: Path) -> None:
    CrossEncoder(str(reranker), local_files_only=True).save_pretrained(str(tmp_path))
    assert (tmp_path / "modules.json").is_file()
    one, other = (open_cross_encoder(str(folder)).score(PAIRS, 500) for folder in (reranker, tmp_path))
    np.testing.assert_array_equal(one, other)


def test_a_limit_cuts_both_texts(reranker: Path) -> None:
    short, long = open_cross_encoder(str(reranker), max_tokens=16), open_cross_encoder(str(reranker))
    theirs = CrossEncoder(str(reranker), local_files_only=True, max_length=16)
    ours = short.score(PAIRS, 500)
    np.testing.assert_allclose(ours, theirs.predict(PAIRS, activation_fn=nn.Identity()), rtol=1e-5, atol=1e-6)
    assert np.abs(ours - long.score(PAIRS, 500)).max() > 1e-3
    assert open_cross_encoder(str(reranker), max_tokens=10_000).model.max_seq_length == 128  # the model's own


def test_what_is_no_reranker_is_refused(reranker: Path, tmp_path: Path) -> None:
    bare = save_tiny("bert", tmp_path / "bare")
    with pytest.raises(UserError, match="names BertModel; expected a model with a head that scores pairs"):
        open_cross_encoder(str(bare))
    SentenceTransformer(str(bare), local_files_only=True).save_pretrained(str(tmp_path / "embedder"))
    with pytest.raises(UserError, match="model_type SentenceTransformer, which has vectors and no scores"):
        open_cross_encoder(str(tmp_path / "embedder"))
    classes = save_reranker(tmp_path / "classes", labels=3)
    with pytest.raises(UserError, match=r"has 3 outputs a pair \(classes\); expected a reranker with one"):
        open_cross_encoder(str(classes))
    weights = classes / "model.safetensors"
    weights.rename(classes / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle, which can run code when read"):
        open_cross_encoder(str(classes))


def test_code_of_a_folder_is_never_run(reranker: Path, tmp_path: Path) -> None:
    folder = save_reranker(tmp_path)
    config = read_json(folder / "config.json")
    config["sentence_transformers"] = {"activation_fn": "evil.run"}
    write_json(folder / "config.json", config | {"model_type": "own", "auto_map": {"AutoConfig": "evil.C"}})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match="cannot be read as a CrossEncoder"):
        open_cross_encoder(str(folder))


def test_a_score_that_is_no_number_names_the_pair(reranker: Path) -> None:
    scorer = open_cross_encoder(str(reranker))
    nn.init.constant_(scorer.model[0].model.classifier.bias, torch.nan)
    with pytest.raises(UserError, match="its score is nan for query 'How do I list"):
        scorer.score(PAIRS, 500)


def test_batches_hold_similar_lengths_within_the_budget() -> None:
    lengths = np.array([3, 9, 9, 1, 50, 2])
    cut = [numbers.tolist() for numbers in batches(lengths, 18)]
    assert cut == [[4], [1, 2], [0, 5, 3]]
    assert list(batches(np.zeros(0, np.int64), 18)) == []


def test_no_pairs_no_scores(reranker: Path) -> None:
    assert open_cross_encoder(str(reranker)).score([], 500).shape == (0,)
