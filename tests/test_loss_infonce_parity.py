"""InfoNCE gives sentence-transformers' values and gradients, on a real tiny model.

`MultipleNegativesRankingLoss` in all directions and partitions, with hardness; its cached version;
`GISTEmbedLoss` with another model as the guide; `MatryoshkaLoss` around them.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from contrastive import mean_count, words
from loss_laws import gathered_columns
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from tiny_models import save_tiny
from torch import Tensor, nn

from embedtrain.batch import Gathered, TeacherVectors
from embedtrain.config.denominator import AboveFraction, AboveMargin, Mask
from embedtrain.config.objective import Objective
from embedtrain.config.terms import InfoNCE, Matryoshka
from embedtrain.loss.infonce import infonce
from embedtrain.loss.objective import build_objective

SIZE = 7
SCALE = 20.0
Direction = str
BLOCK_OF: dict[Direction, str] = {
    "query_to_query": "query_query",
    "doc_to_doc": "document_document",
    "doc_to_query": "document_query",
}
BOUNDS = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-10, 1e-10)}
Columns = list[dict[str, Tensor]]
Models = tuple[SentenceTransformer, SentenceTransformer]


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=str)
def models(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Models:
    """A tiny BERT with mean pooling, and another one, the guide."""
    folders = [
        save_tiny("bert", tmp_path_factory.mktemp(f"bert{seed}"), seed=seed, initializer_range=spread)
        for seed, spread in ((1, 0.15), (2, 0.5))
    ]
    model, guide = (
        SentenceTransformer(str(folder), device="cpu").eval().to(request.param) for folder in folders
    )
    return model, guide


def tokenized(model: SentenceTransformer, num_columns: int) -> Columns:
    """Queries, positives, and `num_columns` - 2 columns of hard negatives."""
    texts = [[words(10 * c + i, 3 + i) for i in range(SIZE)] for c in range(num_columns)]
    return [model.preprocess(column) for column in texts]


def embed(model: SentenceTransformer) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda column: model(dict(column))["sentence_embedding"]


def gathered(models: Models, columns: Columns) -> Gathered:
    model, guide = models
    with torch.no_grad():
        queries_NK, *documents = (embed(guide)(column) for column in columns)
    return gathered_columns(
        embed(model), columns, teacher_vectors=TeacherVectors(queries_NK, torch.cat(documents))
    )


def term(**settings: object) -> InfoNCE:
    return InfoNCE(kind="infonce", **({"temperature": 1 / SCALE} | settings))


def value(g: Gathered, settings: InfoNCE, matryoshka: Matryoshka | None = None) -> Tensor:
    return build_objective(Objective(terms=(settings,), matryoshka=matryoshka))(g, mean_count, {})[0]


def assert_parity(model: SentenceTransformer, ours: Tensor, theirs: Tensor) -> None:
    """Values to 1e-6 relative and gradients to 1e-5 in float32; both to 1e-10 in float64."""
    gradients = []
    for loss in (ours, theirs):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert theirs.item() > 0.1
    of_values, of_gradients = BOUNDS[gradients[0].dtype]
    assert ours.item() == pytest.approx(theirs.item(), rel=of_values)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < of_gradients


@pytest.mark.parametrize("num_columns", [2, 3, 5])
@pytest.mark.parametrize(
    "directions", [(), ("query_to_query",), ("doc_to_doc",), ("query_to_query", "doc_to_doc")]
)
def test_joint(models: Models, directions: tuple[Direction, ...], num_columns: int) -> None:
    columns = tokenized(models[0], num_columns)
    theirs = MultipleNegativesRankingLoss(models[0], scale=SCALE, directions=("query_to_doc", *directions))
    settings = term(**{BLOCK_OF[direction]: True for direction in directions})
    assert_parity(models[0], value(gathered(models, columns), settings), theirs(columns, None))


@pytest.mark.parametrize("num_columns", [2, 4])
@pytest.mark.parametrize(
    "directions", [("doc_to_query",), ("query_to_query", "doc_to_query"), tuple(BLOCK_OF)]
)
def test_joint_with_queries_of_the_positive(
    models: Models, directions: tuple[Direction, ...], num_columns: int
) -> None:
    """Theirs, as GTE's formula, has the positive in both directions, so twice in the denominator; ours once.

    With r = (negatives / positive): ours is log(1 + r), theirs log(2 + r), for each query.
    """
    columns = tokenized(models[0], num_columns)
    theirs = MultipleNegativesRankingLoss(models[0], scale=SCALE, directions=("query_to_doc", *directions))
    settings, g = term(**{BLOCK_OF[direction]: True for direction in directions}), gathered(models, columns)
    ours = torch.stack([infonce(g.rows(i, i + 1), settings, {})[0] for i in range(SIZE)])
    assert_parity(models[0], torch.log1p(ours.exp()).mean(), theirs(columns, None))


@pytest.mark.parametrize("num_columns", [2, 4])
def test_one_softmax_a_direction_is_symmetric(models: Models, num_columns: int) -> None:
    columns = tokenized(models[0], num_columns)
    theirs = MultipleNegativesRankingLoss(
        models[0], SCALE, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    assert_parity(models[0], value(gathered(models, columns), term(symmetric=True)), theirs(columns, None))


@pytest.mark.parametrize("directions", [(), ("query_to_query", "doc_to_doc")])
def test_hardness_of_hard_negatives(models: Models, directions: tuple[Direction, ...]) -> None:
    columns = tokenized(models[0], 4)
    theirs = MultipleNegativesRankingLoss(
        models[0],
        scale=SCALE,
        directions=("query_to_doc", *directions),
        hardness_mode="hard_negatives",
        hardness_strength=5.0,
    )
    blocks = {BLOCK_OF[direction]: True for direction in directions}
    g = gathered(models, columns)
    assert_parity(models[0], value(g, term(hardness=5.0, **blocks)), theirs(columns, None))
    assert value(g, term(**blocks)).item() != pytest.approx(value(g, term(hardness=5.0)).item(), rel=1e-3)


def test_cached(models: Models) -> None:
    """The cached version, in mini-batches that do not divide the batch."""
    columns = tokenized(models[0], 4)
    theirs = CachedMultipleNegativesRankingLoss(
        models[0],
        scale=SCALE,
        mini_batch_size=3,
        directions=("query_to_doc", "query_to_query", "doc_to_doc"),
        hardness_mode="hard_negatives",
        hardness_strength=5.0,
    )
    ours = value(gathered(models, columns), term(query_query=True, document_document=True, hardness=5.0))
    assert_parity(models[0], ours, theirs(columns, None))


@pytest.mark.parametrize(
    ("strategy", "margin", "mask"),
    [
        ("absolute", 0.0, AboveMargin(kind="above_margin", margin=0.0, judge="teacher")),
        ("absolute", 0.05, AboveMargin(kind="above_margin", margin=-0.05, judge="teacher")),
        ("relative", 0.05, AboveFraction(kind="above_fraction", fraction=0.95, judge="teacher")),
    ],
)
@pytest.mark.parametrize(
    ("num_columns", "anchors", "positives"), [(2, True, True), (3, False, False), (3, True, False)]
)
def test_gist_embed_loss(
    models: Models,
    strategy: str,
    margin: float,
    mask: Mask,
    num_columns: int,
    anchors: bool,
    positives: bool,
) -> None:
    """A query that loses all negatives adds 0 to both sums; theirs counts it in the mean, ours does not."""
    columns = tokenized(models[0], num_columns)
    theirs = GISTEmbedLoss(
        *models,
        temperature=0.1,
        margin_strategy=strategy,
        margin=margin,
        contrast_anchors=anchors,
        contrast_positives=positives,
    )
    g = gathered(models, columns)
    settings = term(temperature=0.1, masks=(mask,), query_query=anchors, document_document=positives)
    total, count = infonce(g, settings, {})
    assert 3 < count.item() <= SIZE
    assert_parity(models[0], total / SIZE, theirs(columns, None))
    unmasked = term(temperature=0.1, masks=(), query_query=anchors, document_document=positives)
    assert infonce(g, unmasked, {})[0].item() > 1.1 * total.item()


@pytest.mark.parametrize("cached", [False, True])
def test_matryoshka_loss(models: Models, cached: bool) -> None:
    columns = tokenized(models[0], 3)
    directions = ("query_to_doc", "query_to_query")
    inner: nn.Module = (
        CachedMultipleNegativesRankingLoss(models[0], SCALE, mini_batch_size=3, directions=directions)
        if cached
        else MultipleNegativesRankingLoss(models[0], SCALE, directions=directions)
    )
    dims, weights = (32, 16, 4), (1.0, 0.3, 0.2)
    theirs = MatryoshkaLoss(models[0], inner, list(dims), list(weights))
    view = Matryoshka(dims=dims, weights=weights)
    ours = value(gathered(models, columns), term(query_query=True), view)
    assert_parity(models[0], ours, theirs(columns, None))


def test_matryoshka_around_gist(models: Models) -> None:
    """The guide keeps all its dims."""
    columns = tokenized(models[0], 3)
    inner = GISTEmbedLoss(*models, temperature=1 / SCALE, contrast_positives=False)
    theirs = MatryoshkaLoss(models[0], inner, [32, 8])
    mask = AboveMargin(kind="above_margin", margin=0.0, judge="teacher")
    ours = value(gathered(models, columns), term(masks=(mask,), query_query=True), Matryoshka(dims=(32, 8)))
    assert_parity(models[0], ours, theirs(columns, None))


def test_the_models_are_not_alike(models: Models) -> None:
    """Guide and model disagree, or the parity above would not show whose cosines decide."""
    columns = tokenized(models[0], 2)
    with torch.no_grad():
        cosines = [F.normalize(embed(model)(columns[0])) for model in models]
    ours, theirs = (x @ x.T for x in cosines)
    assert float((ours - theirs).abs().max()) > 0.05
