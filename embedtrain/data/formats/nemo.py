"""NeMo AutoModel: a JSON file of questions with document ids and its corpora, or texts in the rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtrain.config.errors import UserError
from embedtrain.data.formats.files import parse_whole
from embedtrain.data.formats.record import Fault, Record, check_name, passage_text, wrong
from embedtrain.data.formats.request import Placed, Request, data_files
from embedtrain.data.formats.sample import Sample
from embedtrain.data.formats.texts import Texts, one_of
from embedtrain.data.rows import Row

KEYS = ("question_id", "question", "query", "corpus_id", "pos_doc", "neg_doc")
METADATA = "merlin_metadata.json"


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents of one corpus, and what its metadata says to its queries."""

    texts: Texts
    instruction: str | None = None


def detect_inline(sample: Sample) -> str | None:
    """Why these may be rows with texts in them."""
    return "keys 'query' or 'question' and 'pos_doc'" if is_row(sample) and not has_ids(sample) else None


def detect_by_id(sample: Sample) -> str | None:
    """Why this may be a file of questions with document ids."""
    if sample.has("corpus", "data"):
        return "a JSON object of 'corpus' and 'data'"
    return "keys 'question' and 'pos_doc' with ids" if is_row(sample) and has_ids(sample) else None


def is_row(sample: Sample) -> bool:
    """Whether the first record is a question with documents."""
    return sample.has("pos_doc") and sample.has_any(("query", "question"))


def has_ids(sample: Sample) -> bool:
    """Whether the first record's documents are ids of a corpus."""
    return sample.has("corpus_id") and sample.has("question_id")


def read_inline(request: Request) -> Iterator[Placed]:
    """The rows of a request whose texts stand in the rows."""
    return request.make_rows(inline_row)


def inline_row(record: Record) -> Row:
    """The row of one line. Raises Fault."""
    return Row(read_query(record), inline_texts(record, "pos_doc"), inline_texts(record, "neg_doc"))


def inline_texts(record: Record, key: str) -> tuple[str, ...]:
    """A text, a list of texts, or objects with a text."""
    items = record.items(key, "texts") if record.has(key) else []
    return tuple(passage_text(f"{key}[{n}]", item) for n, item in enumerate(items))


def read_query(record: Record) -> str:
    """The question."""
    return record.text(one_of(record, ("query", "question")))


def read_by_id(request: Request) -> Iterator[Placed]:
    """The rows of a request whose documents stand in the corpora that the file names, or in --corpus."""
    whole = parse_whole(request.folder) if request.folder.suffix == ".json" else None
    held = whole if isinstance(whole, Mapping) and "data" in whole else None
    corpora: dict[str | None, Corpus]
    if held is not None and request.corpus is None:
        corpora = read_corpora(request, held)
    else:
        corpora = {None: Corpus(request.corpus_texts("its documents are ids"))}
    records = None if held is None else items_of(request, held["data"])
    return request.make_rows(lambda record: row_by_id(record, corpora), records)


def items_of(request: Request, items: Any) -> Iterator[Record]:
    """The records under `data`."""
    if not isinstance(items, list):
        raise UserError(f"{request.path}: {wrong('data', items, 'a list of questions')}")
    for number, item in enumerate(items):
        place = f"{request.path}: data[{number}]"
        if isinstance(item, dict):
            yield Record(place, item)
        else:
            request.problems.add(place, str(wrong("data", item, "a question with its documents")))


def read_corpora(request: Request, whole: Mapping[str, Any]) -> dict[str | None, Corpus]:
    """The corpora that the file names, by id; a relative path is relative to the file."""
    corpora: dict[str | None, Corpus] = {}
    named = whole.get("corpus")
    for entry in named if isinstance(named, list) else [named]:
        path = entry.get("path") if isinstance(entry, Mapping) else entry
        if not isinstance(path, str):
            raise UserError(f"{request.path}: {wrong('corpus', entry, 'a list of objects with a path')}")
        folder = request.folder.parent / path
        if not (folder / METADATA).is_file():
            raise UserError(f"{request.path}: 'corpus': {folder} has no {METADATA}")
        metadata = parse_whole(folder / METADATA)
        if not isinstance(metadata, dict) or not isinstance(metadata.get("corpus_id"), str):
            raise UserError(f"{folder / METADATA}: expected an object with a 'corpus_id'")
        corpora[metadata["corpus_id"]] = Corpus(
            read_corpus(request, folder), metadata.get("query_instruction")
        )
    return corpora


def read_corpus(request: Request, folder: Path) -> Texts:
    """The texts of a corpus folder: its data file, which is named train where there are several."""
    files = [file for file in data_files(folder) if file.name != METADATA]
    chosen = [file for file in files if file.name.startswith("train")] or files
    if len(chosen) != 1:
        raise UserError(f"{folder}: {len(chosen)} data files; expected one, or one split named train")
    return request.texts(str(chosen[0]))


def row_by_id(record: Record, corpora: Mapping[str | None, Corpus]) -> Row:
    """The row of one question. Raises Fault."""
    name = None if None in corpora else record.name("corpus_id")
    if name not in corpora:
        raise Fault(f"'corpus_id': '{name}' is none of the file's corpora: {', '.join(map(str, corpora))}")
    corpus = corpora[name]
    texts = [
        tuple(corpus.texts.get(key, document_id(key, item)) for item in record.items(key, "document ids"))
        if record.has(key)
        else ()
        for key in ("pos_doc", "neg_doc")
    ]
    return Row(read_query(record), texts[0], texts[1], instruction=corpus.instruction or None)


def document_id(key: str, item: Any) -> str:
    """An id as it is, or in an object."""
    return check_name(key, item.get("id") if isinstance(item, Mapping) else item)
