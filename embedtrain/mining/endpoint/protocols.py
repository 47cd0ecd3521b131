"""What each server expects to be asked, and where its answer holds the numbers. Pure.

OpenAI: `POST /embeddings`. TEI (text-embeddings-inference 1.x): `POST /embed`, `POST /rerank`, `GET /info`.
vLLM: `POST /embeddings`, `POST /rerank` (the format of Jina and Cohere), `GET /models`. Servers that can cut
long texts are asked to; scores are asked for as raw logits, as those of a cross-encoder are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embedtrain.config.retrievers import EndpointJudge

Body = dict[str, object]


class Malformed(Exception):
    """An answer that is no such answer; the text says what was found and expected."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The texts of one request, prompts written; with a query where the server scores pairs."""

    texts: Sequence[str]
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """One way to ask: the address below the url, the body, and the numbers in the answer, one a text."""

    path: str
    body: Callable[[str | None, Batch], Body]
    numbers: Callable[[Any, int], list[Any]]


def title(judge: EndpointJudge) -> str:
    """What messages call the judge."""
    return f"endpoint '{judge.column}' ({judge.url})"


def wire_of(judge: EndpointJudge) -> Wire:
    """How to ask this judge."""
    return WIRES[judge.protocol, judge.gives]


def ask_openai(model: str | None, batch: Batch) -> Body:
    """Embeddings as JSON numbers; OpenAI itself refuses what is too long."""
    return {"model": model, "input": list(batch.texts), "encoding_format": "float"}


def ask_vllm(model: str | None, batch: Batch) -> Body:
    """The same; -1 cuts at the model's own limit."""
    return ask_openai(model, batch) | {"truncate_prompt_tokens": -1}


def ask_tei(model: str | None, batch: Batch) -> Body:
    """Vectors as the model gives them; normalised here where asked for. One server has one model."""
    return {"inputs": list(batch.texts), "truncate": True, "normalize": False}


def rerank_vllm(model: str | None, batch: Batch) -> Body:
    """Raw scores of one query's documents."""
    return {
        "model": model,
        "query": batch.query,
        "documents": list(batch.texts),
        "truncate_prompt_tokens": -1,
        "use_activation": False,
    }


def rerank_tei(model: str | None, batch: Batch) -> Body:
    """Raw scores of one query's texts."""
    return {"query": batch.query, "texts": list(batch.texts), "truncate": True, "raw_scores": True}


def read_data(answer: Any, count: int) -> list[Any]:
    """The vectors in `data`, by `index`."""
    return by_index(entries_in(answer, "data"), "embedding", count)


def read_results(answer: Any, count: int) -> list[Any]:
    """The scores in `results`, which come best first, by `index`."""
    return by_index(entries_in(answer, "results"), "relevance_score", count)


def read_ranks(answer: Any, count: int) -> list[Any]:
    """The scores of a list of ranks, which come best first, by `index`."""
    return by_index(answer, "score", count)


def read_list(answer: Any, count: int) -> list[Any]:
    """A list of vectors in the order asked."""
    if not isinstance(answer, list):
        raise Malformed(f"found {kind_of(answer)}, expected a list")
    if len(answer) != count:
        raise Malformed(f"found {len(answer)} entries for {count} texts")
    return answer


def entries_in(answer: Any, name: str) -> Any:
    """What stands under `name`."""
    if not isinstance(answer, dict) or name not in answer:
        raise Malformed(f"found {kind_of(answer)}, expected '{name}' in it")
    return answer[name]


def by_index(entries: Any, name: str, count: int) -> list[Any]:
    """`name` of each entry, in the order of `index`, which must count every text once."""
    entries = read_list(entries, count)
    if not all(isinstance(entry, dict) and {"index", name} <= entry.keys() for entry in entries):
        raise Malformed(f"expected 'index' and '{name}' in each entry")
    found = {entry["index"]: entry[name] for entry in entries}
    if found.keys() != set(range(count)):
        raise Malformed(f"expected the indices 0 to {count - 1}, each once")
    return [found[number] for number in range(count)]


def kind_of(answer: Any) -> str:
    """An answer in a word or two."""
    return f"keys {', '.join(sorted(answer))}" if isinstance(answer, dict) else f"a {type(answer).__name__}"


def served_by_tei(answer: Any, model: str | None) -> object:
    """Model, revision and precision that a TEI server runs."""
    return {name: answer.get(name) for name in ("model_id", "model_sha", "model_dtype")}


def served_by_vllm(answer: Any, model: str | None) -> object:
    """Folder or hub id behind the name in the requests."""
    return next((entry.get("root") for entry in answer["data"] if entry.get("id") == model), None)


WIRES: dict[tuple[str, str], Wire] = {
    ("openai", "vectors"): Wire("/embeddings", ask_openai, read_data),
    ("vllm", "vectors"): Wire("/embeddings", ask_vllm, read_data),
    ("tei", "vectors"): Wire("/embed", ask_tei, read_list),
    ("vllm", "scores"): Wire("/rerank", rerank_vllm, read_results),
    ("tei", "scores"): Wire("/rerank", rerank_tei, read_ranks),
}
SERVED: dict[str, tuple[str, Callable[[Any, str | None], object]]] = {
    "tei": ("/info", served_by_tei),
    "vllm": ("/models", served_by_vllm),
}
"""Where a server says which model it runs, so that vectors of another one are not taken for its own."""
