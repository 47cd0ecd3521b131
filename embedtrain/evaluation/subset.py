"""Fixed samples of a task's texts within a number of tokens: the same for every model, run and machine."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

from embedtrain.config.errors import UserError

CountTokens = Callable[[Sequence[str]], Sequence[int]]
JUDGED_FRACTION = 0.75  # of a retrieval subset's tokens: queries and their judged documents


def shuffled(keys: Sequence[str]) -> list[int]:
    """Positions of the keys in an order that depends on each key alone, so that a larger set keeps it."""
    return sorted(range(len(keys)), key=lambda i: (blake2b(keys[i].encode()).digest(), i))


def take_within(order: Iterable[int], costs: Sequence[int], budget: int) -> list[int]:
    """The beginning of `order` whose costs add up to at most `budget`."""
    taken = []
    for position in order:
        budget -= costs[position]
        if budget < 0:
            break
        taken.append(position)
    return taken


def take_rows(texts: Sequence[Sequence[str]], max_tokens: int, count_tokens: CountTokens) -> list[int]:
    """Rows to keep, in their old order, of a table whose columns are `texts`."""
    costs = [sum(row) for row in zip(*map(count_tokens, texts), strict=True)]
    keys = ["\n".join(row) for row in zip(*texts, strict=True)]
    return sorted(take_within(shuffled(keys), costs, max_tokens))


def refuse_few(name: str, taken: list[int], max_tokens: int) -> list[int]:
    """`taken`, or a UserError where it is too little to measure anything."""
    if len(taken) < 2:
        raise UserError(f"task '{name}': {max_tokens} tokens hold {len(taken)} of its texts; allow more")
    return taken


def take_by_label(
    texts: Sequence[str], labels: Sequence[Hashable], max_tokens: int, count_tokens: CountTokens
) -> list[int]:
    """Rows within `max_tokens` that keep labels balanced: one of each label, then a second of each, …"""
    order = shuffled(texts)
    seen: dict[Hashable, int] = {}
    turn = {}
    for position in order:
        turn[position] = seen[labels[position]] = seen.get(labels[position], 0) + 1
    rounds = sorted(order, key=turn.__getitem__)  # stable: the shuffled order within a round
    return sorted(take_within(rounds, count_tokens(texts), max_tokens))


def take_judged(
    query_ids: Sequence[str],
    query_costs: Sequence[int],
    document_costs: Mapping[str, int],
    judged: Mapping[str, Mapping[str, int]],
    max_tokens: int,
) -> tuple[list[int], set[str]]:
    """Queries, and ids of documents: all those judged for a kept query, then others, up to `max_tokens`."""
    budget = int(max_tokens * JUDGED_FRACTION)
    queries, kept, spent = [], set[str](), 0
    for position in shuffled(query_ids):
        wanted = {name for name in judged[query_ids[position]] if name in document_costs}
        cost = query_costs[position] + sum(document_costs[name] for name in wanted - kept)
        if spent + cost > budget:
            break
        spent += cost
        kept |= wanted
        queries.append(position)
    rest = [name for name in document_costs if name not in kept]
    costs = [document_costs[name] for name in rest]
    others = take_within(shuffled(rest), costs, max_tokens - spent)
    return sorted(queries), set(chain(kept, (rest[i] for i in others)))


def take_listed(
    query_ids: Sequence[str],
    query_costs: Sequence[int],
    document_costs: Mapping[str, int],
    listed: Mapping[str, Sequence[str]],
    max_tokens: int,
) -> list[int]:
    """Queries whose texts, with all documents listed for them, are of at most `max_tokens`."""
    queries, kept = [], set[str]()
    for position in shuffled(query_ids):
        wanted = set(listed[query_ids[position]]) - kept
        max_tokens -= query_costs[position] + sum(document_costs[name] for name in wanted)
        if max_tokens < 0:
            break
        kept |= wanted
        queries.append(position)
    return sorted(queries)
