"""Test data on disk to tasks: BEIR folders, and jsonl or parquet files known by their keys."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from embedtrain.config.errors import UserError, found
from embedtrain.evaluation.beir import is_beir, read_beir
from embedtrain.evaluation.hub import is_hub, read_hub
from embedtrain.evaluation.records import Record, is_data_file, read_records
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    Label,
    PairClassification,
    Reranking,
    Retrieval,
    Similarity,
    Task,
)

ACCEPTED = """accepted:
  a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR)        retrieval
  a folder with corpus/, queries/ and qrels/ of parquet files (hub)          retrieval
    and with top_ranked/                                                    reranking
  files (.jsonl, .jsonl.gz or .parquet) whose rows have the keys
    query, pos   or   query, positives   (optional: neg or negatives)       retrieval
    query, positive, negative   (mteb's own columns, a text or a list)      reranking
    text1, text2, score   or   sentence1, sentence2, score                  similarity (STS)
    text1, text2, label   or   sentence1, sentence2, label (0 or 1)         pair classification
    sentence1, sentence2                                                    bitext
    text, label, in two files NAME-train and NAME-test                      classification
    text, label, in one file                                                clustering"""

Column = tuple[str, ...]


def find_tasks(path: str | Path) -> list[Task]:
    """All tasks in a file or, recursively, in a folder. A UserError tells what is wrong, and where."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file() and not is_data_file(path):
        raise UserError(f"{path}: not a .jsonl, .jsonl.gz or .parquet file\n{ACCEPTED}")
    tasks = read_folder(path) if path.is_dir() else read_files([path])
    if not tasks:
        raise UserError(f"{path}: no test data found; {found_in(path)}\n{ACCEPTED}")
    repeated = [name for name, times in Counter(task.name for task in tasks).items() if times > 1]
    if repeated:
        raise UserError(f"{path}: more than one task is named '{repeated[0]}'; rename one of the files")
    return tasks


def found_in(path: Path) -> str:
    """What a folder holds, for an error."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"the folder holds {shown or 'nothing'}"


def read_folder(folder: Path) -> list[Task]:
    """Tasks of a folder and of those inside it."""
    if is_beir(folder):
        return [read_beir(folder)]
    if is_hub(folder):
        return read_hub(folder)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    tasks = read_files([entry for entry in entries if is_data_file(entry)])
    for entry in entries:
        if entry.is_dir():
            tasks += read_folder(entry)
    return sorted(tasks, key=lambda task: task.name)


def read_files(paths: Sequence[Path]) -> list[Task]:
    """Tasks of files in one folder: NAME-train and NAME-test together, any other file by itself."""
    by_name: dict[tuple[str, str], Path] = {}
    for path in paths:
        other = by_name.setdefault(split_name(path), path)
        if other != path:
            raise UserError(f"{path}: the same task and split as {other}; rename one of the files")
    tasks = []
    for (name, split), path in by_name.items():
        mate = by_name.get((name, "train")) if split == "test" else None
        if split == "train" and (name, "test") in by_name:
            continue  # read with its mate, or the training part of another kind of task
        tasks.append(read_file(name, path, mate))
    return tasks


def split_name(path: Path) -> tuple[str, str]:
    """Task name and split: `banking77-test.jsonl` is (banking77, test), `faq/test.jsonl` is (faq, test)."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    for split in ("train", "test"):
        if stem == split:
            return path.resolve().parent.name, split
        if stem.endswith((f"-{split}", f"_{split}", f".{split}")):
            return stem[: -len(split) - 1], split
    return stem, ""


def read_file(name: str, path: Path, train: Path | None) -> Task:
    """The task of a file, by the keys of its first row."""
    records = read_records(path)
    first = records[0]
    for keys, read in LAYOUTS.items():
        if first.has(*keys):
            return read(name, records, keys)
    if first.has("text", "label"):
        return read_labelled(name, path, records, train)
    raise UserError(f"{first.place}: keys {', '.join(first.values)} are those of no test data\n{ACCEPTED}")


def read_rows(name: str, records: Sequence[Record], keys: Column) -> Retrieval:
    """Queries with relevant texts; the documents are all texts given, each once."""
    query_key, positive_key = keys
    negative_key = {"pos": "neg", "positives": "negatives"}[positive_key]
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    for record in records:
        query = record.text(query_key)
        query_id = queries.setdefault(query, f"q{len(queries)}")
        grades = judged.setdefault(query_id, {})
        for text in record.texts(positive_key):
            grades[documents.setdefault(text.strip(), f"d{len(documents)}")] = 1
        for text in record.texts(negative_key) if record.has(negative_key) else ():
            documents.setdefault(text.strip(), f"d{len(documents)}")
    return Retrieval(
        name=name,
        query_ids=tuple(queries.values()),
        queries=tuple(queries),
        document_ids=tuple(documents.values()),
        documents=tuple(documents),
        judged=judged,
    )


def read_reranking(name: str, records: Sequence[Record], keys: Column) -> Reranking:
    """Queries with texts of their own to put in order. A text that two queries share is two documents.

    Ids, on which ties depend, are those that mteb 2.26 gives such rows (abstasks/text/reranking.py). As
    there, a row without a positive or a negative is left out.
    """
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    for number, record in enumerate(records):
        query_id = f"test_query{number}"
        sides = [record.texts(key, or_none=True) for key in ("positive", "negative")]
        if all(sides):
            queries[query_id], judged[query_id] = record.text("query"), {}
            for side, texts, grade in zip(("apositive", "negative"), sides, (1, 0), strict=True):
                for place, text in enumerate(texts):
                    document_id = f"{side}_{query_id}_{place:05}"
                    documents[document_id], judged[query_id][document_id] = text.strip(), grade
    if not queries:
        raise UserError(f"{records[0].place}: task '{name}': no row has both a positive and a negative")
    return Reranking(
        name=name,
        query_ids=tuple(queries),
        queries=tuple(queries.values()),
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        candidates={query_id: tuple(grades) for query_id, grades in judged.items()},
        judged=judged,
    )


def read_similarity(name: str, records: Sequence[Record], keys: Column) -> Similarity:
    """Pairs with scores."""
    first, second = columns(records, keys[:2])
    scores = tuple(record.number("score") for record in records)
    require_several(name, scores, "score")
    return Similarity(name=name, first=first, second=second, scores=scores)


def read_pairs(name: str, records: Sequence[Record], keys: Column) -> PairClassification:
    """Pairs labelled 0 or 1."""
    first, second = columns(records, keys[:2])
    labels = tuple(record.binary("label") for record in records)
    require_several(name, labels, "label")
    return PairClassification(name=name, first=first, second=second, labels=labels)


def read_bitext(name: str, records: Sequence[Record], keys: Column) -> Bitext:
    """Sentences and translations."""
    first, second = columns(records, keys)
    return Bitext(name=name, first=first, second=second)


def columns(records: Sequence[Record], keys: Column) -> list[tuple[str, ...]]:
    """The texts under each key."""
    return [tuple(record.text(key) for record in records) for key in keys]


def read_labelled(
    name: str, path: Path, records: Sequence[Record], train: Path | None
) -> Classification | Clustering:
    """Labelled texts: with training ones, a classification task; without, a clustering task."""
    texts, labels = labelled(records)
    if train is None:
        require_several(name, labels, "label")
        return Clustering(name=name, texts=texts, labels=labels)
    train_texts, train_labels = labelled(read_records(train))
    require_several(name, train_labels, "label")
    known = set(train_labels)
    unknown = [record for record in records if record.label("label") not in known]
    if unknown:
        label = found(unknown[0].label("label"))
        raise UserError(f"{unknown[0].place}: label {label} does not occur in {train}")
    return Classification(
        name=name,
        train_texts=train_texts,
        train_labels=train_labels,
        test_texts=texts,
        test_labels=labels,
    )


def labelled(records: Sequence[Record]) -> tuple[tuple[str, ...], tuple[Label, ...]]:
    """Texts and labels; labels of one file are all texts or all integers."""
    labels = tuple(record.label("label") for record in records)
    odd = [record for record in records if type(record.label("label")) is not type(labels[0])]
    if odd:
        raise odd[0].wrong("label", f"the kind of the first row, {found(labels[0])}", odd[0].label("label"))
    return columns(records, ("text",))[0], labels


def require_several(name: str, values: Sequence[object], key: str) -> None:
    """A UserError where all values are the same: nothing can be measured then."""
    if len(set(values)) < 2:
        raise UserError(
            f"task '{name}': every {key} is {found(values[0])}; at least two different are needed"
        )


LAYOUTS: dict[Column, Callable[[str, Sequence[Record], Column], Task]] = {
    ("query", "pos"): read_rows,
    ("query", "positives"): read_rows,
    ("query", "positive"): read_reranking,
    ("text1", "text2", "score"): read_similarity,
    ("sentence1", "sentence2", "score"): read_similarity,
    ("text1", "text2", "label"): read_pairs,
    ("sentence1", "sentence2", "label"): read_pairs,
    ("sentence1", "sentence2"): read_bitext,
}
