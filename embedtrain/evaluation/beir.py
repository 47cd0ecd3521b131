"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, or a part of one with a clear error.

Judgments may lack the header, or be rows of qrels/SPLIT.jsonl.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.evaluation.records import Record, read_records
from embedtrain.evaluation.tasks import Retrieval

SPLITS = ("test", "dev", "train")


def is_beir(folder: Path) -> bool:
    """Whether a folder has the corpus or the queries of that layout; all its parts must then be there."""
    return bool(parts(folder, "corpus")) or bool(parts(folder, "queries"))


def parts(folder: Path, name: str) -> list[Path]:
    """The file of one part, plain or compressed."""
    return [path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.is_file()]


def read_beir(folder: Path) -> Retrieval:
    """The task of a folder: the queries judged in its qrels, and all documents."""
    found = {name: parts(folder, name) for name in ("corpus", "queries")}
    names = [f"{split}.{ending}" for split in SPLITS for ending in ("tsv", "jsonl")]
    qrels = [path for name in names if (path := folder / "qrels" / name).is_file()]
    missing = [f"{name}.jsonl" for name, paths in found.items() if not paths]
    if missing or not qrels:
        lacking = ", ".join(missing + ([] if qrels else ["qrels/test.tsv"]))
        raise UserError(f"{folder}: looks like a BEIR folder, but {lacking} is missing")
    documents = by_id(read_records(found["corpus"][0]), document_text)
    queries = by_id(read_records(found["queries"][0]), lambda record: record.text("text"))
    judged = read_qrels(qrels[0]) if qrels[0].suffix == ".tsv" else record_qrels(read_records(qrels[0]))
    return make_retrieval(folder.resolve().name, str(qrels[0]), folder, queries, documents, judged)


def make_retrieval(
    name: str,
    qrels: str,
    folder: Path,
    queries: dict[str, str],
    documents: dict[str, str],
    judged: dict[str, dict[str, int]],
) -> Retrieval:
    """The queries that are judged, and all documents. A UserError where judgments are of other texts."""
    judged = {name: grades for name, grades in judged.items() if name in queries}
    if not any(name in documents for grades in judged.values() for name in grades):
        raise UserError(
            f"{qrels}: no judgment is about a query and a document of {folder}: do the ids match?"
        )
    return Retrieval(
        name=name,
        query_ids=tuple(name for name in queries if name in judged),
        queries=tuple(text for name, text in queries.items() if name in judged),
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        judged=judged,
    )


def document_text(record: Record) -> str:
    """Title, a space and text, as mteb reads it."""
    title = record.text("title") if record.has("title") else ""
    return f"{title} {record.text('text')}".strip()


def by_id(records: list[Record], text_of: Callable[[Record], str]) -> dict[str, str]:
    """Texts by id, in the file's order."""
    texts: dict[str, str] = {}
    for record in records:
        key = "_id" if record.has("_id") or not record.has("id") else "id"
        name = record.name(key)
        if name in texts:
            raise UserError(f"{record.place}: {key} '{name}' occurs twice")
        texts[name] = text_of(record)
    return texts


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Grades: query id → document id → grade."""
    judged: dict[str, dict[str, int]] = {}
    for query, document, grade in qrels_lines(path):
        judged.setdefault(query, {})[document] = grade
    if not judged:
        raise UserError(f"{path}: no judgments")
    return judged


def record_qrels(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Grades of rows with `query-id`, `corpus-id` (one or a list) and perhaps `score`, else 1."""
    judged: dict[str, dict[str, int]] = {}
    for record in records:
        given = record.require("corpus-id")
        names = given if isinstance(given, list) else [record.name("corpus-id")]
        grade = int(record.number("score")) if record.has("score") else 1
        judged.setdefault(record.name("query-id"), {}).update(dict.fromkeys(map(str, names), grade))
    return judged


def qrels_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """Query, document and grade of each line after the header."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and fields[0] == "query-id"):
            continue
        if len(fields) != 3 or not fields[2].strip().lstrip("-").isdigit():
            raise UserError(
                f"{path}:{number}: expected query id, document id and an integer, by tabs: {line!r}"
            )
        yield fields[0], fields[1], int(fields[2])
