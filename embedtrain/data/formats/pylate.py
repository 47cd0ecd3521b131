"""PyLate's distillation sets: train (query_id, document_ids, scores), queries and documents.

No document is marked as the answer: the one that the teacher scores highest is the positive, the others are
negatives, and all keep their scores.
"""

from collections.abc import Iterator

from embedtrain.config.errors import UserError
from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.formats.request import Placed, Request, read_path
from embedtrain.data.formats.sample import Sample, folder_names
from embedtrain.data.formats.texts import Texts
from embedtrain.data.rows import Row

KEYS = ("query_id", "document_ids", "scores")
PARTS = ("train", "queries", "documents")


def detect(sample: Sample) -> str | None:
    """Why this may be such a set."""
    if all(len(find_part(sample.names, part)) == 1 for part in PARTS):
        return "files named train, queries and documents"
    return "keys 'query_id', 'document_ids' and 'scores'" if sample.has(*KEYS) else None


def find_part(names: tuple[str, ...], part: str) -> list[str]:
    """The files of a folder whose name before its suffixes is that of the part."""
    return [name for name in names if name.split(".")[0] == part]


def read(request: Request) -> Iterator[Placed]:
    """The rows of a folder with the three files, or of a file with --queries and --corpus."""
    train, queries, documents = request.path, request.queries, request.corpus
    if request.folder.is_dir():
        train = part_path(request, "train")
        queries = queries or part_path(request, "queries")
        documents = documents or part_path(request, "documents")
    if queries is None or documents is None:
        raise UserError(f"{request.path}: its texts are ids; name their files with --queries and --corpus")
    query_texts, document_texts = request.texts(queries), request.texts(documents)
    records = read_path(train, request.split, request.problems)
    yield from request.make_rows(lambda record: make_row(record, query_texts, document_texts), records)


def part_path(request: Request, part: str) -> str:
    """The file of a part in the folder. Raises UserError where there is none, or more than one."""
    found = find_part(folder_names(request.folder), part)
    if len(found) != 1:
        raise UserError(f"{request.path}: {len(found)} files named {part}; expected one")
    return str(request.folder / found[0])


def make_row(record: Record, queries: Texts, documents: Texts) -> Row:
    """The row of one line. Raises Fault."""
    names, scores = record.names("document_ids"), record.numbers("scores")
    if len(names) != len(scores):
        raise Fault(f"'scores': found {len(scores)} scores for {len(names)} document_ids")
    texts = tuple(documents.get("document_ids", name) for name in names)
    best = scores.index(max(scores))
    return Row(
        query=queries.get("query_id", record.name("query_id")),
        positives=(texts[best],),
        negatives=texts[:best] + texts[best + 1 :],
        positive_scores=(scores[best],),
        negative_scores=scores[:best] + scores[best + 1 :],
    )
