"""A small retrieval task whose documents are told apart by their words."""

import numpy as np

from embedtrain.evaluation.tasks import Retrieval

WORDS = [*"abcdefghijklmn"]


def retrieval(name: str = "faq", num: int = 40) -> Retrieval:
    """Documents of five words; each is asked for by three of them."""
    generator = np.random.default_rng(3)
    documents = [" ".join(generator.choice(WORDS, 5, replace=False)) + f" n{i}" for i in range(num)]
    queries = [" ".join(text.split()[:3]) for text in documents[: num // 2]]
    return Retrieval(
        name=name,
        query_ids=tuple(f"q{i}" for i in range(len(queries))),
        queries=tuple(queries),
        document_ids=tuple(f"d{i:02}" for i in range(num)),
        documents=tuple(documents),
        judged={f"q{i}": {f"d{i:02}": 1} for i in range(len(queries))},
    )
