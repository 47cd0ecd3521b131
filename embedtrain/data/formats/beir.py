"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv; one row a judged query.

Documents of a grade above 0 are positives, those judged 0 are negatives.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from embedtrain.artifacts import flush
from embedtrain.config.errors import UserError
from embedtrain.data.formats.files import read_file
from embedtrain.data.formats.hub import choose_split
from embedtrain.data.formats.judgments import Judgment, judged_rows
from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample, folder_names

HEADER = ("query-id", "corpus-id", "score")


def detect(sample: Sample) -> str | None:
    """Why this may be such a folder."""
    parts = [sample.files(f"{part}.jsonl*") for part in ("corpus", "queries")]
    return "corpus.jsonl, queries.jsonl and qrels/" if all(parts) and sample.files("qrels/*.tsv") else None


def read(request: Request) -> Iterator[Placed]:
    """The rows of a folder: of its split `train`, of its only one, or of the one asked for."""
    if not request.folder.is_dir():
        raise UserError(f"{request.path}: expected a folder with corpus.jsonl, queries.jsonl and qrels/")
    splits = [path.stem for path in sorted((request.folder / "qrels").glob("*.tsv"))]
    if not splits:
        raise UserError(f"{request.path}: no qrels/*.tsv in this folder")
    split = choose_split(f"{request.path}/qrels", splits, request.split)
    queries, corpus = (request.texts(part_path(request, part)) for part in ("queries", "corpus"))
    return judged_rows(request, read_qrels(request, split), queries, corpus)


def part_path(request: Request, part: str) -> str:
    """The file of a part, plain or packed. Raises UserError where there is none."""
    names = [name for name in folder_names(request.folder) if name.startswith(f"{part}.jsonl")]
    if not names:
        raise UserError(f"{request.path}: {part}.jsonl is missing in this folder")
    return str(request.folder / names[0])


def read_qrels(request: Request, split: str) -> Iterator[Judgment]:
    """The judgments of a split."""
    for record in read_file(request.folder / "qrels" / f"{split}.tsv", request.problems):
        try:
            yield read_judgment(record)
        except Fault as fault:
            request.problems.add(record.place, str(fault))


def read_judgment(record: Record) -> Judgment:
    """One line of qrels. Raises Fault."""
    if not set(HEADER) <= set(record.values):
        raise Fault(f"the columns are {', '.join(record.values)}; expected {', '.join(HEADER)}")
    return Judgment(record.place, record.name(HEADER[0]), record.name(HEADER[1]), record.number(HEADER[2]))


def write_beir(
    folder: Path,
    *,
    documents: Iterable[tuple[str, str]],
    queries: Iterable[tuple[str, str]],
    judged: Iterable[tuple[str, str]],
) -> None:
    """Write a new folder of (id, text) and of the (query id, document id) that belong together."""
    (folder / "qrels").mkdir(parents=True)
    files = {"corpus.jsonl": ({"_id": i, "title": "", "text": text} for i, text in documents)}
    files |= {"queries.jsonl": ({"_id": i, "text": text} for i, text in queries)}
    for name, records in files.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as file:
        file.write("\t".join(HEADER) + "\n")
        file.writelines(f"{query}\t{document}\t1\n" for query, document in judged)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        flush(path)
