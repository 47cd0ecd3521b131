"""MS MARCO's tsv files without headers: collection, queries, qrels, and triples of texts or of ids.

A folder gives the rows of its qrels. A file of triples gives a row a line: of texts, or of ids with --queries
and --corpus (or with collection.tsv and queries*.tsv beside it).
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.data.formats.judgments import Judgment, judged_rows
from embedtrain.data.formats.record import Fault
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.formats.texts import Entry, Texts
from embedtrain.data.problems import Problems
from embedtrain.data.records import PACKED, read_lines
from embedtrain.data.rows import Row

Cells = tuple[str, list[str]]  # place, the cells of a line


def detect(sample: Sample) -> str | None:
    """Why this may be such a folder or file."""
    if sample.files("collection.tsv*") and sample.files("qrels*.tsv*"):
        return "collection.tsv and qrels"
    name = sample.path.name
    return "the name of a file of triples" if "triples" in name and is_tsv(sample.path) else None


def is_tsv(path: Path) -> bool:
    """Whether a file is tab-separated, by its name."""
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix == ".tsv"


def read(request: Request) -> Iterator[Placed]:
    """The rows of a folder's judgments, or of a file of triples."""
    if request.folder.is_dir():
        qrels = find_file(request.folder, "qrels", request.split)
        return judged_rows(request, read_qrels(qrels, request.problems), *read_texts(request, request.folder))
    if not request.folder.is_file():
        raise UserError(f"{request.path}: no such file")
    triples = read_cells(request.folder, 3, "query, positive, negative", request.problems)
    first = list(islice(triples, 1))
    if not first or not all(cell.strip().isdigit() for cell in first[0][1]):
        return text_triples(request)
    return id_triples(request, *read_texts(request, request.folder.parent))


def find_file(folder: Path, part: str, split: str | None) -> Path:
    """`part.tsv` or `part.SPLIT.tsv`; without a split that of train, or the only one. Raises UserError."""
    found = sorted(path for path in folder.glob(f"{part}*") if is_tsv(path))
    wanted = [path for path in found if f".{split or 'train'}." in path.name] or (
        found if split is None else []
    )
    if len(wanted) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{folder}: expected one file {part}*.tsv; found {names}; choose one with --split")
    return wanted[0]


def read_texts(request: Request, folder: Path) -> tuple[Texts, Texts]:
    """The texts of the queries and of the collection."""
    queries = Path(request.queries) if request.queries else find_file(folder, "queries", request.split)
    corpus = Path(request.corpus) if request.corpus else find_file(folder, "collection", None)
    texts = [
        Texts(read_entries(path, request.problems), str(path), request.problems) for path in (queries, corpus)
    ]
    return texts[0], texts[1]


def read_cells(path: Path, number: int, names: str, problems: Problems) -> Iterator[Cells]:
    """The cells of each line; quotes are characters like others here."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    for line_number, line in read_lines(path, problems):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) == number:
            yield f"{path}:{line_number}", cells
        elif line.strip():
            problems.add(
                f"{path}:{line_number}", f"found {len(cells)} cells by tabs, expected {number}: {names}"
            )


def read_entries(path: Path, problems: Problems) -> Iterator[Entry]:
    """(place, id, text) of a collection or of queries."""
    for place, (name, text) in read_cells(path, 2, "id, text", problems):
        yield place, name, text


def read_qrels(path: Path, problems: Problems) -> Iterator[Judgment]:
    """Judgments in TREC's form: query, 0, passage, grade."""
    for place, (query, _, passage, grade) in read_cells(path, 4, "query id, 0, passage id, grade", problems):
        if grade.strip().lstrip("-").isdigit():
            yield Judgment(place, query, passage, float(grade))
        else:
            problems.add(place, f"grade: found '{grade}', expected a whole number")


def text_triples(request: Request) -> Iterator[Placed]:
    """A row of each line of query, positive, negative."""
    for place, (query, positive, negative) in read_cells(
        request.folder, 3, "query, positive, negative", request.problems
    ):
        yield from request.checked(place, Row(query, (positive,), (negative,)))


def id_triples(request: Request, queries: Texts, corpus: Texts) -> Iterator[Placed]:
    """A row of each line of three ids."""
    get: Callable[[str, str], str] = corpus.get
    for place, (query, positive, negative) in read_cells(
        request.folder, 3, "query id, positive id, negative id", request.problems
    ):
        try:
            row = Row(queries.get("query", query), (get("positive", positive),), (get("negative", negative),))
        except Fault as fault:
            request.problems.add(place, str(fault))
        else:
            yield from request.checked(place, row)
