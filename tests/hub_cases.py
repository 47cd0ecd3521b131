"""Records of published sets as the hub has them, and the rows that a person would make of them."""

from typing import Any

from embedtrain.data.rows import Row

EIFFEL = {"docid": "9232#0", "title": "Eiffel Tower", "text": "The tower is 330 metres tall."}
LOUVRE = {"docid": "18079#2", "title": "Louvre", "text": "The Louvre is a museum in Paris."}
FOUND = "Eiffel Tower The tower is 330 metres tall."
QUESTION = "how tall is the eiffel tower"
TEVATRON: dict[str, Any] = {
    "query_id": "1",
    "query": QUESTION,
    "positive_passages": [EIFFEL],
    "negative_passages": [LOUVRE, EIFFEL],
}
NOT_FOUND = "Louvre The Louvre is a museum in Paris."
WEB = "Given a web search query, retrieve relevant passages that answer the query"
HORSE = "A person on a horse jumps over a broken down airplane."
# set → (file name, records as the hub has them, rows)
CASES: dict[str, tuple[str, list[dict[str, Any]], list[Row]]] = {
    "kalm-finetuning": (
        "msmarco/train-00000-of-00001.parquet",
        [
            {
                "query": f"Instruct: {WEB} \n Query: {QUESTION}",
                "pos": ["330 metres"],
                "neg": ["In Paris.", " "],
            },
            {
                "query": "Instruct: Alike \n Query: a",
                "pos": ["Instruct: Alike \n Query: b"],
                "neg": [],
            },
            {"query": QUESTION, "pos": ["330 metres"], "neg": ["330 metres ", "In Paris.", "In Paris."]},
        ],
        [
            Row(QUESTION, ("330 metres",), ("In Paris.",), instruction=WEB),
            Row("a", ("b",), instruction="Alike"),
            Row(QUESTION, ("330 metres",), ("In Paris.",)),
        ],
    ),
    "bge-full": (
        "data/eli5-00002-of-00007.parquet",
        [
            {"query": "Why?", "pos": ["Because."], "neg": ["", "No."], "prompt": "Find it", "type": "normal"},
            {"query": "x", "pos": [""], "neg": ["y"], "prompt": "Find it", "type": "normal"},
            {"query": "a", "pos": ["b"], "neg": [], "prompt": "Group", "type": "symmetric_clustering"},
        ],
        [
            Row("Why?", ("Because.",), ("No.",), instruction="Find it", task="retrieval", source="eli5"),
            Row("a", ("b",), instruction="Group", task="clustering", source="eli5"),
        ],
    ),
    "bge-e5": (
        "data/nq-00000-of-00001.parquet",
        [{"query": QUESTION, "pos": [FOUND], "neg": [NOT_FOUND], "prompt": "Find", "type": "normal"}],
        [Row(QUESTION, (FOUND,), (NOT_FOUND,), instruction="Find", task="retrieval", source="nq")],
    ),
    "echo": (
        "quora_duplicates.jsonl",
        [{"query": f"q{n}?", "positive": f"p{n}?", "negative": f"n{n}?"} for n in range(2)],
        [
            Row(f"q{n}?", (f"p{n}?",), (f"n{n}?",), instruction=told, task="pair_classification")
            for n, told in enumerate(
                (
                    "Given a question, retrieve questions that are semantically equivalent to the given "
                    "question",
                    "Find questions that have the same meaning as the input question",
                )
            )
        ],
    ),
    "msmarco": ("train.jsonl", [TEVATRON], [Row(QUESTION, (FOUND,), (NOT_FOUND,))]),
    "msmarco-qa": (
        "v2.1/train-00000-of-00007.parquet",
        [
            {
                "answers": ["330 metres"],
                "passages": {
                    "is_selected": chosen,
                    "passage_text": [LOUVRE["text"], EIFFEL["text"]],
                    "url": ["http://a", "http://b"],
                },
                "query": QUESTION,
                "query_id": 19699,
                "query_type": "NUMERIC",
                "wellFormedAnswers": [],
            }
            for chosen in ([0, 1], [0, 0])
        ],
        [Row(QUESTION, (EIFFEL["text"],), (LOUVRE["text"],), task="retrieval")],
    ),
    "all-nli": (
        "pair-class/train-00000-of-00001.parquet",
        [
            {"premise": HORSE, "hypothesis": "A person is training his horse.", "label": 1},
            {"premise": HORSE, "hypothesis": "A person is at a diner.", "label": 2},
            {"premise": HORSE, "hypothesis": "A person is outdoors.", "label": 0},
        ],
        [Row(HORSE, ("A person is outdoors.",), ("A person is at a diner.",), task="nli")],
    ),
    "quora": (
        "pair-class/train-00000-of-00001.parquet",
        [
            {"sentence1": "How can I be good?", "sentence2": "How does one become good?", "label": 1},
            {"sentence1": "How can I be good?", "sentence2": "How can I be rich?", "label": 0},
        ],
        [
            Row(
                "How can I be good?",
                ("How does one become good?",),
                ("How can I be rich?",),
                task="pair_classification",
            ),
            Row("How does one become good?", ("How can I be good?",), task="pair_classification"),
        ],
    ),
    "miracl": (
        "en/train/0000.parquet",
        [TEVATRON, {**TEVATRON, "positive_passages": []}],
        [Row(QUESTION, (FOUND,), (NOT_FOUND,))],
    ),
    "fineweb": (
        "sample/10BT/000_00000.parquet",
        [
            {
                "text": text,
                "id": "<urn:uuid:0d8a309d>",
                "dump": "CC-MAIN-2013-20",
                "url": "http://example.org",
                "date": "2013-05-18T05:48:54Z",
                "file_path": "s3://commoncrawl/x.warc.gz",
                "language": "en",
                "language_score": 0.91,
                "token_count": 26,
            }
            for text in ("How to tie a knot\nTake a rope. Make a loop.", "Only one sentence here.")
        ],
        [Row("How to tie a knot", ("Take a rope. Make a loop.",), task="title_body")],
    ),
    "cc-news": (
        "pair/train-00000-of-00004.parquet",
        [{"title": "Storm hits coast", "article": "A storm came."}, {"title": "", "article": "No headline."}],
        [Row("Storm hits coast", ("A storm came.",), task="title_body")],
    ),
    "amazon-qa": (
        "pair/train-00000-of-00003.parquet",
        [{"query": "Does it float?", "answer": "Yes, it does."}],
        [Row("Does it float?", ("Yes, it does.",), task="retrieval")],
    ),
    "natural-questions": (
        "pair/train-00000-of-00001.parquet",
        [{"query": QUESTION, "answer": FOUND}],
        [Row(QUESTION, (FOUND,), task="retrieval")],
    ),
    "stsb": (
        "data/train-00000-of-00001.parquet",
        [{"sentence1": "A plane is taking off.", "sentence2": "An air plane is taking off.", "score": 1.0}],
        [Row("A plane is taking off.", ("An air plane is taking off.",), score=1.0, task="sts")],
    ),
}
