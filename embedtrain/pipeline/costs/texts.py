"""How long texts are: a sample of the rows and files that a run reads, in tokens of four bytes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.problems import Problems
from embedtrain.data.records import ROWS, TEXTS_FILE, read_lines
from embedtrain.data.rows import OTHER_NAMES
from embedtrain.text import source_text

BYTES_PER_TOKEN = 4  # of English, roughly; on the shipped rows 3.2 to 4.7 by two tokenizers
SAMPLE = 400  # rows that are looked at
RUN = 10  # of them that follow each other
WHOLE = 50_000  # rows up to which the sample is spread over a whole parquet file
TEXT_KEYS = ("query", "text", "text1", "text2", "sentence1", "sentence2", "title")
LIST_KEYS = ("positives", "pos", "negatives", "neg")
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes of some rows' queries, positives and negatives, and how many of these a row has."""

    queries: tuple[int, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]

    def each(self, texts: tuple[int, ...]) -> float:
        """Texts of this kind a row."""
        return len(texts) / max(1, len(self.queries))


@dataclass(frozen=True, slots=True)
class Texts:
    """Mean tokens of a source's texts as they are written and cut, and how many of them a row has."""

    query: float
    document: float
    positives: float
    negatives: float

    def of_row(self, num_negatives: float) -> float:
        """Tokens of a row in a batch: its query, all its positives and so many negatives."""
        return self.query + (self.positives + num_negatives) * self.document


def num_bytes(text: object) -> int:
    """Of a text; of anything else none."""
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0


@cache
def sample_rows(path: str) -> Sample | None:
    """Some rows of a source; None where they cannot be read."""
    found: list[Record] = []
    with suppress(UserError, OSError, ValueError, KeyError, pa.ArrowException):
        found = list(records(Path(path).expanduser()))
    if not found:
        return None
    rows = [{OTHER_NAMES.get(key, key): value for key, value in record.items()} for record in found]
    texts = {
        key: tuple(num_bytes(text) for row in rows for text in as_list(row.get(key)))
        for key in ("positives", "negatives")
    }
    return Sample(tuple(num_bytes(row.get("query")) for row in rows), texts["positives"], texts["negatives"])


def as_list(value: object) -> Sequence[object]:
    """A list as it is, one text as a list of it."""
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def records(path: Path) -> Iterator[Record]:
    """Some records of a file, or rows of a folder with their texts put in."""
    if path.is_dir():
        yield from joined(path)
    elif path.suffix == ".parquet":
        yield from spread(pq.ParquetFile(path))
    else:
        for (_, line), _ in zip(read_lines(path, Problems()), range(SAMPLE), strict=False):
            value = json.loads(line) if line.strip() else None
            if isinstance(value, dict):
                yield value


def spread(file: pq.ParquetFile) -> Iterator[Record]:
    """Rows from all over a small file, and from the beginnings of four groups of a large one."""
    wanted = {*TEXT_KEYS, *LIST_KEYS, *OTHER_NAMES}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    count, groups = file.metadata.num_rows, file.num_row_groups
    if count <= WHOLE:
        table = file.read(columns)
        for start in range(0, count, max(RUN, count * RUN // SAMPLE)):
            yield from table.slice(start, RUN).to_pylist()
        return
    for group in range(0, groups, max(1, groups // 4)):
        batches = file.iter_batches(SAMPLE // 4, row_groups=[group], columns=columns)
        yield from next(batches).to_pylist()


def joined(folder: Path) -> Iterator[Record]:
    """Rows of a folder with their texts, looked up by number where the folder is small.

    In a large one every text stands for as many bytes as the texts have on average.
    """
    rows, texts = pq.ParquetFile(folder / ROWS), pq.ParquetFile(folder / TEXTS_FILE)
    if texts.metadata.num_rows <= WHOLE:
        all_texts = texts.read(["text"])["text"].to_pylist()
    else:
        first = next(texts.iter_batches(SAMPLE, columns=["text"]))["text"].to_pylist()
        mean = sum(map(num_bytes, first)) // len(first)
        all_texts = [" " * mean] * int(texts.metadata.num_rows)
    for row in spread(rows):
        ids = {key: as_list(row.get(key)) for key in ("positives", "negatives")}
        lists = {key: [all_texts[number] for number in numbers] for key, numbers in ids.items()}  # type: ignore[call-overload]
        yield {"query": all_texts[row["query"]], **lists}


def source_texts(run_text: TextFormat, source: Source, limits: Mapping[str, int]) -> Texts | None:
    """A source's texts as a stage with these limits reads them; None where its rows cannot be read."""
    sample = sample_rows(source.rows)
    if sample is None:
        return None
    how = source_text(run_text.model_copy(update=dict(limits)), source)
    wraps = {side: template_tokens(getattr(how, side), source.instruction) for side in ("query", "document")}
    shots = few_shot_tokens(sample, source)
    query = mean_tokens(sample.queries, wraps["query"] + shots, how.max_query_tokens)
    side = "query" if source.symmetric else "document"
    documents = (*sample.positives, *sample.negatives)
    document = mean_tokens(documents, wraps[side], how.max_document_tokens)
    return Texts(query, document, sample.each(sample.positives), sample.each(sample.negatives))


def template_tokens(template: str, instruction: str) -> float:
    """Tokens that a template adds to a text."""
    written = template.replace("{instruction}", instruction)
    for name in ("{text}", "{examples}"):
        written = written.replace(name, "")
    return num_bytes(written) / BYTES_PER_TOKEN


def few_shot_tokens(sample: Sample, source: Source) -> float:
    """Tokens of the examples before a query, on average."""
    few = source.few_shot
    if few is None:
        return 0.0
    wrap = template_tokens(few.example.replace("{query}", "").replace("{response}", ""), source.instruction)
    one = wrap + mean_tokens(sample.queries, 0, few.max_query_tokens)
    one += mean_tokens(sample.positives, 0, few.max_response_tokens) if few.response == "positive" else 2
    return min((few.min_examples + few.max_examples) / 2 * one, few.max_tokens)


def mean_tokens(lengths: Sequence[int], more: float, limit: float) -> float:
    """Tokens of texts of so many bytes with what a template adds, each cut to the limit."""
    if not lengths:
        return 0.0
    return sum(min(length / BYTES_PER_TOKEN + more + 1, limit) for length in lengths) / len(lengths)


@dataclass(frozen=True, slots=True)
class Pile:
    """Texts of files, and their tokens, each text cut to a limit."""

    count: float
    tokens: float

    def __add__(self, other: "Pile") -> "Pile":
        """Both."""
        return Pile(self.count + other.count, self.tokens + other.tokens)


def count_texts(paths: Sequence[str], limit: float) -> Pile | None:
    """Texts of files and folders, told from their size and first lines; None where one cannot be read."""
    pile = Pile(0, 0)
    for path in paths:
        root = Path(path).expanduser()
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        try:
            for file in files:
                pile += count_file(file, limit)
        except (UserError, OSError, ValueError, StopIteration, pa.ArrowException):
            return None
    return pile if pile.count else None


def count_file(file: Path, limit: float) -> Pile:
    """Texts of one file; nothing for a file of another kind."""
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        rows, found = int(pq.ParquetFile(file).metadata.num_rows), list(records(file))
    elif name.endswith((".jsonl", ".txt")):
        lines = [line for (_, line), _ in zip(read_lines(file, Problems()), range(SAMPLE), strict=False)]
        packed = 3 if file.suffix == ".gz" else 1
        each = sum(map(num_bytes, lines)) / max(1, len(lines))
        rows = round(packed * file.stat().st_size / each) if each else 0
        plain = name.endswith(".txt")
        found = [{"text": line} if plain else json.loads(line) for line in lines if line.strip()]
    else:
        return Pile(0, 0)
    lengths = [length for record in found for length in lengths_in(record)]
    each = len(lengths) / max(1, len(found))
    return Pile(rows * each, rows * each * mean_tokens(lengths, 0, limit))


def lengths_in(record: Record) -> list[int]:
    """Bytes of each text of a record; a title belongs to its text."""
    single = [num_bytes(record.get(key)) for key in TEXT_KEYS if key != "title" and record.get(key)]
    lists = [num_bytes(text) for key in LIST_KEYS for text in as_list(record.get(key))]
    if record.get("title") and single:
        single[0] += num_bytes(record["title"])
    return single + lists
