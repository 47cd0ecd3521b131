"""Who encodes which text of a global batch: all processes get as many tokens, whoever owns the rows.

A step ends when its slowest process does. Of pairs of texts of 110 tokens (median; lognormal, s = 0.9, at
most 512) on 8 processes, the process with most tokens has by chance 31 % more than the mean where each holds
8 pairs, 7 % with 128, 3 % with 1024. So texts move from who has most to who has least until it is 1 %. All
lengths travel from host to host for it, and the tokens of what moves.

Dimensions: T texts encoded here, N texts of all processes, A all queries, C candidates, D dims.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.batch import TokenBatch, join
from embedtrain.dist import current, gather_fields, gather_places
from embedtrain.model.packed import copied

EVEN = 1.01
"""Times the mean that a process may have: to even out less costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """The `texts` that this process encodes, and where the vectors of all texts will stand.

    No process encodes more than `longest`; `queries_A` and `candidates_C` (int64, on the CPU) are places as
    `gather_places` counts them, in the order of the processes that own the rows.
    """

    texts: TokenBatch
    longest: int
    queries_A: Tensor
    candidates_C: Tensor

    def gather(self, vectors_TD: Tensor) -> tuple[Tensor, Tensor]:
        """All queries (A, D) and all candidates (C, D) with gradient, from the vectors of each `texts`."""
        if current().world == 1:
            return vectors_TD[: len(self.queries_A)], vectors_TD[len(self.queries_A) :]
        places = (copied(x, vectors_TD.device) for x in (self.queries_A, self.candidates_C))
        queries_AD, candidates_CD = gather_places(vectors_TD, self.longest, *places)
        return queries_AD, candidates_CD


def deal_texts(queries: TokenBatch, documents: TokenBatch) -> Dealt:
    """Give each text of all processes' rows to one process; a single process keeps all, queries first.

    A process encodes what it keeps in the order of its rows, then what it is given in the order of all.
    """
    here, local = current(), join(queries, documents)
    [known] = gather_fields(
        {
            "lengths_N": local.lengths_T.int(),
            "first_N": local.first_T.int(),
            "counts": torch.tensor([len(queries), len(documents)]),
        }
    )
    counts = known["counts"].view(here.world, 2)
    owner_N = torch.arange(here.world).repeat_interleave(counts.sum(dim=1))
    rank_N = torch.tensor(deal(known["lengths_N"].tolist(), owner_N.tolist(), here.world), dtype=torch.int64)
    moves_N = rank_N != owner_N
    texts = move(local, known["lengths_N"].long(), known["first_N"].long(), owner_N, rank_N)
    order_N = torch.argsort(2 * rank_N + moves_N, stable=True)
    sizes = torch.bincount(rank_N, minlength=here.world)
    longest, starts = int(sizes.max()), sizes.cumsum(0) - sizes
    place_N = torch.empty_like(rank_N)
    place_N[order_N] = (
        torch.arange(len(rank_N)) + (torch.arange(here.world) * longest - starts)[rank_N[order_N]]
    )
    is_query_N = torch.tensor([True, False]).repeat(here.world).repeat_interleave(counts.flatten())
    return Dealt(texts, longest, place_N[is_query_N], place_N[~is_query_N])


def move(
    local: TokenBatch, lengths_N: Tensor, first_N: Tensor, owner_N: Tensor, rank_N: Tensor
) -> TokenBatch:
    """What this process keeps of its own texts, then what others give it; only moving tokens are sent."""
    here, moves_N = current().rank, rank_N != owner_N
    if not bool(moves_N.any()):
        return local
    leaves_T = moves_N[owner_N == here]
    kept = local.take((~leaves_T).nonzero().flatten()) if bool(leaves_T.any()) else local
    [sent] = gather_fields({"ids_P": local.take(leaves_T.nonzero().flatten()).ids_P.int()})
    moved = TokenBatch(sent["ids_P"], lengths_N[moves_N], first_N[moves_N])
    given = moved.take((rank_N[moves_N] == here).nonzero().flatten())
    return join(kept, TokenBatch(given.ids_P.long(), given.lengths_T, given.first_T))


def deal(lengths: Sequence[int], owners: Sequence[int], world: int) -> list[int]:
    """The process that encodes each text: its owner, but for what moves from who has most to who has least.

    At a time the longest text that leaves neither on the other side of the mean, or else the shortest; until
    who has most is EVEN, or even the shortest of its texts would make another have as much.
    """
    ranks, loads = list(owners), [0] * world
    sizes = [max(1, length) for length in lengths]  # a text without tokens is work too
    for rank, size in zip(ranks, sizes, strict=True):
        loads[rank] += size
    mean = sum(loads) / world
    if max(loads) <= EVEN * mean:
        return ranks
    held: list[list[tuple[int, int]]] = [[] for _ in range(world)]
    for text in sorted(range(len(sizes)), key=sizes.__getitem__):
        held[ranks[text]].append((sizes[text], text))
    while max(loads) > EVEN * mean:
        most, least = loads.index(max(loads)), loads.index(min(loads))
        limit = min(loads[most] - mean, mean - loads[least])
        place = max(0, bisect_right(held[most], (limit, len(sizes))) - 1)
        if held[most][place][0] >= loads[most] - loads[least]:
            break
        size, text = held[most].pop(place)
        insort(held[least], (size, text))
        ranks[text] = least
        loads[most] -= size
        loads[least] += size
    return ranks
