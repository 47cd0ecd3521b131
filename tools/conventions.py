"""The ways in which public trainers and embedtrain gather vectors, each as the loss of one process.

In our own words, but for sentence-transformers, whose installed loss runs itself. docs/gradients.md gives the
commits at which the others were read.

A all queries, B local queries, C documents of all processes, G documents of a row (its positive first),
P features, D dims.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, TokenBatch
from embedtrain.config.objective import Objective
from embedtrain.config.terms import InfoNCE
from embedtrain.dist import current, gather_vectors, mean_over_processes
from embedtrain.loss.objective import build_objective
from embedtrain.train.step import gather_batch

TEMPERATURE = 0.1


@dataclass(frozen=True)
class Rows:
    """Some rows of the batch: their features, a teacher's distribution, and where they start in it."""

    queries_BP: Tensor
    documents_BGP: Tensor
    teacher_BG: Tensor
    start: int

    def part(self, start: int, stop: int) -> "Rows":
        """Rows `start` to `stop`."""
        here = slice(start, stop)
        return Rows(self.queries_BP[here], self.documents_BGP[here], self.teacher_BG[here], start)

    @property
    def group(self) -> int:
        """Documents of a row."""
        return self.documents_BGP.shape[1]


Loss = Callable[[Rows, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Convention:
    """One process's loss of its rows and their vectors; `truth` is that of a single process with all rows.

    `computes` says it in words. `uneven`: the processes hold unequal numbers of rows.
    """

    who: str
    computes: str
    loss: Loss
    truth: Loss
    uneven: bool = False
    ours: bool = False


def mean_loss(rows: Rows, queries_BD: Tensor, documents_CD: Tensor, start: int = 0) -> Tensor:
    """Mean InfoNCE of queries; the positive of the first is the first document of row `start`."""
    scores_BC = queries_BD @ documents_CD.T / TEMPERATURE
    target_B = (start + torch.arange(len(queries_BD))) * rows.group
    return F.cross_entropy(scores_BC, target_B)


def both_ways(
    queries_BD: Tensor, positives_BD: Tensor, all_q_AD: Tensor, all_p_AD: Tensor, start: int
) -> Tensor:
    """CLIP's loss of local rows against gathered ones: query to positives and positive to queries."""
    target_B = start + torch.arange(len(queries_BD))
    to_positives = F.cross_entropy(queries_BD @ all_p_AD.T / TEMPERATURE, target_B)
    return (to_positives + F.cross_entropy(positives_BD @ all_q_AD.T / TEMPERATURE, target_B)) / 2


def distillation(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """Mean cross-entropy of the rows' own documents under the teacher."""
    documents_BGD = documents_CD.unflatten(0, (-1, rows.group))
    scores_BG = torch.einsum("bd,bgd->bg", queries_BD, documents_BGD) / TEMPERATURE
    return F.cross_entropy(scores_BG, rows.teacher_BG)


def without_gradient(x: Tensor) -> Tensor:
    """The rows of all processes, none with gradient; a single process gathers nothing."""
    if current().world == 1:
        return x
    gathered = [torch.empty_like(x) for _ in range(current().world)]
    dist.all_gather(gathered, x.detach().contiguous())
    return torch.cat(gathered)


def own_slot(x: Tensor) -> Tensor:
    """The rows of all processes, this one's with gradient."""
    gathered = list(without_gradient(x).split(len(x)))
    gathered[current().rank] = x
    return torch.cat(gathered)


def with_gradient(x: Tensor) -> Tensor:
    """The rows of all processes; a row's gradient is the sum of what all processes make of it."""
    return gather_vectors(x)[0]


def plain(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """InfoNCE among the vectors at hand."""
    return mean_loss(rows, queries_BD, documents_CD)


def plain_distilled(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """The same, and the teacher's distribution over each row's own documents."""
    return plain(rows, queries_BD, documents_CD) + distillation(rows, queries_BD, documents_CD)


def plain_both_ways(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """Both directions among the queries and positives at hand."""
    positives_BD = documents_CD[:: rows.group]
    return both_ways(queries_BD, positives_BD, queries_BD, positives_BD, 0)


def all_rows(gather: Callable[[Tensor], Tensor]) -> Loss:
    """Every process computes the loss of all rows."""
    return lambda rows, queries_BD, documents_CD: mean_loss(rows, gather(queries_BD), gather(documents_CD))


def local_rows(gather: Callable[[Tensor], Tensor]) -> Loss:
    """Every process computes the loss of its own queries against all documents."""
    return lambda rows, queries_BD, documents_CD: mean_loss(
        rows, queries_BD, gather(documents_CD), rows.start
    )


def times_processes(loss: Loss) -> Loss:
    """The loss times the number of processes."""
    return lambda *arguments: loss(*arguments) * current().world


def all_rows_distilled(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """InfoNCE of all rows, and the distillation of the local ones."""
    contrast = all_rows(own_slot)(rows, queries_BD, documents_CD)
    return contrast + distillation(rows, queries_BD, documents_CD)


def local_rows_both_ways(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """Both directions of the local rows, against vectors without gradient."""
    positives_BD = documents_CD[:: rows.group]
    gathered = without_gradient(queries_BD), without_gradient(positives_BD)
    return both_ways(queries_BD, positives_BD, *gathered, rows.start)


def sentence_transformers(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """Its own MultipleNegativesRankingLoss, which gathers by a call that PyTorch calls deprecated."""
    loss = MultipleNegativesRankingLoss(model=None, scale=1 / TEMPERATURE, gather_across_devices=True)
    columns = documents_CD.unflatten(0, (-1, rows.group)).unbind(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loss.compute_loss_from_embeddings([queries_BD, *columns], None)


def embedtrain(rows: Rows, queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """The product's own gather and objective."""
    objective = build_objective(Objective(terms=(InfoNCE(kind="infonce", temperature=TEMPERATURE),)))
    g = gather_batch(make_batch(rows), *gather_vectors(queries_BD, documents_CD))
    return objective(g, mean_over_processes, {})[0]


def make_batch(rows: Rows) -> ContrastiveBatch:
    """The rows as embedtrain's batch: no two texts are the same, and their tokens are nobody's concern."""
    num_queries, num_documents = len(rows.queries_BP), len(rows.queries_BP) * rows.group
    index_B = rows.start + torch.arange(num_queries)
    first_key = rows.start * rows.group + 1
    return ContrastiveBatch(
        queries=no_tokens(num_queries),
        documents=no_tokens(num_documents),
        query_index_B=index_B,
        query_key_B=-1 - index_B,
        label_B=torch.zeros(num_queries, dtype=torch.int64),
        graded_score_B=torch.full((num_queries,), torch.nan, dtype=torch.float64),
        owner_C=index_B.repeat_interleave(rows.group),
        is_positive_C=torch.arange(num_documents) % rows.group == 0,
        document_key_C=first_key + torch.arange(num_documents),
        label_C=torch.zeros(num_documents, dtype=torch.int64),
        teacher_scores={},
        teacher_vectors=None,
        source="rows",
        draw_seed=0,
    )


def no_tokens(count: int) -> TokenBatch:
    """Texts that are encoded already."""
    return TokenBatch.of([[]] * count)


CONVENTIONS = (
    Convention(
        "FlagEmbedding, sentence-transformers by default",
        "no gather: mean over local queries, against local documents",
        plain,
        plain,
    ),
    Convention(
        "DPR, SimCSE, GradCache's loss, FlagEmbedding, GritLM, KaLM-Embedding, open_clip by default",
        "gather with gradient in the own slot, mean over all queries",
        all_rows(own_slot),
        plain,
    ),
    Convention(
        "Tevatron, VLM2Vec, GradCache's README",
        "the same, times the number of processes",
        times_processes(all_rows(own_slot)),
        plain,
    ),
    Convention(
        "FlagEmbedding with soft labels",
        "gather with gradient in the own slot, mean over all queries, plus distillation of local queries",
        all_rows_distilled,
        plain_distilled,
    ),
    Convention(
        "NeMo Automodel's retrieval recipe with distributed in-batch negatives",
        "gather with gradient in the own slot, mean over local queries",
        local_rows(own_slot),
        plain,
    ),
    Convention(
        "open_clip with --local-loss alone",
        "gather without gradient, mean over local rows, both directions",
        local_rows_both_ways,
        plain_both_ways,
    ),
    Convention(
        "LLM2Vec, NeMo Automodel's InfoNCE loss, open_clip with --gather-with-grad alone",
        "gather with gradient, mean over all queries",
        all_rows(with_gradient),
        plain,
    ),
    Convention(
        "PyLate, contrastors",
        "gather with gradient, mean over local queries, times the number of processes",
        times_processes(local_rows(with_gradient)),
        plain,
    ),
    Convention(
        "sentence-transformers with gather_across_devices, open_clip with both",
        "gather with gradient, mean over local queries",
        sentence_transformers,
        plain,
    ),
    Convention(
        "any of these where processes hold unequal numbers of queries",
        "gather with gradient, mean over local queries, then over processes",
        local_rows(with_gradient),
        plain,
        uneven=True,
    ),
    Convention(
        "embedtrain",
        "gather with gradient, sum over local queries, over the mean count",
        embedtrain,
        plain,
        ours=True,
    ),
    Convention(
        "embedtrain where processes hold unequal numbers of queries",
        "the same",
        embedtrain,
        plain,
        uneven=True,
        ours=True,
    ),
)
