"""What a user asks to be read: paths and their helpers, and the records and texts behind them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedtrain.config.errors import UserError, nearest
from embedtrain.data.formats.files import READERS, is_data_file, kind_of, read_file
from embedtrain.data.formats.hub import HUB_ID, is_saved, read_hub, read_saved
from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.formats.texts import Texts, named_entries
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row, row_fault

Placed = tuple[str, Row]


@dataclass(frozen=True)
class Request:
    """One path to read, with what its format may need beside it."""

    path: str
    problems: Problems
    corpus: str | None = None  # texts of document ids
    queries: str | None = None  # texts of query ids
    columns: Mapping[str, str] | None = None  # key that is wanted -> column that has it
    split: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)  # why -> records that make no row

    @property
    def folder(self) -> Path:
        """The path, where it is one of this machine."""
        return Path(self.path)

    def records(self) -> Iterator[Record]:
        """The records of the path, columns renamed as asked."""
        for number, record in enumerate(read_path(self.path, self.split, self.problems)):
            if self.columns is not None and number == 0:
                check_columns(record, self.columns)
            yield record if self.columns is None else renamed(record, self.columns)

    def parts(self) -> Iterator["Request"]:
        """A request for each data file of a folder, or this one."""
        if not self.folder.is_dir() or is_saved(self.folder):
            yield self
            return
        for file in data_files(self.folder):
            yield replace(self, path=str(file))

    def texts(self, path: str) -> Texts:
        """Texts by id from a file, folder or data set whose records have an id and a text."""
        records = read_path(path, None, self.problems)
        return Texts(named_entries(records, self.problems), path, self.problems)

    def corpus_texts(self, what: str) -> Texts:
        """The texts of document ids. Raises UserError where no corpus was given."""
        if self.corpus is None:
            raise UserError(f"{self.path}: {what}; name their file with --corpus")
        return self.texts(self.corpus)

    def make_rows(
        self, make: Callable[[Record], Row], records: Iterable[Record] | None = None
    ) -> Iterator[Placed]:
        """A row of each record. What is wrong with a record is a problem, and the next one is read."""
        for record in self.records() if records is None else records:
            try:
                row = make(record)
            except Fault as fault:
                self.problems.add(record.place, str(fault))
            else:
                yield from self.checked(record.place, row)

    def checked(self, place: str, row: Row) -> Iterator[Placed]:
        """The row with its place, or a problem."""
        if fault := row_fault(row):
            self.problems.add(place, fault)
        else:
            yield place, row


def read_path(path: str, split: str | None, problems: Problems) -> Iterator[Record]:
    """The records of a file, of all files of a folder in order of name, or of a data set of the hub."""
    local = Path(path)
    if is_hub_id(path):
        yield from read_hub(path, split)
    elif is_saved(local):
        yield from read_saved(local, split)
    else:
        for file in data_files(local) if local.is_dir() else [local]:
            yield from read_file(file, problems)


def is_hub_id(path: str) -> bool:
    """Whether a path is none of this machine, and has the shape of a name on the hub."""
    local = Path(path)
    here = path.startswith(".") or local.exists() or Path(local.parts[0]).exists()
    return not here and kind_of(local) not in READERS and HUB_ID.fullmatch(path) is not None


def data_files(folder: Path) -> list[Path]:
    """The data files right below a folder. Raises UserError where there is none."""
    files = sorted(entry for entry in folder.iterdir() if is_data_file(entry))
    if not files:
        raise UserError(f"{folder}: no data files in this folder")
    return files


def check_columns(first: Record, columns: Mapping[str, str]) -> None:
    """Raise UserError where the first record lacks a column that is asked for."""
    for column in columns.values():
        if column not in first.values:
            raise UserError(f"{first.place}: no column '{column}'; {nearest(column, first.values)}")


def renamed(record: Record, columns: Mapping[str, str]) -> Record:
    """The record with only the columns asked for, under the keys wanted; what is missing stays missing."""
    values = {key: record.values[column] for key, column in columns.items() if column in record.values}
    return Record(record.place, values, record.only_text)
