"""Run and machine files into frozen values, with overrides from the command line; every fault at once."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from embedtrain.config.errors import PASSWORD, ConfigError, UserError, nearest
from embedtrain.config.faults import Fault, Location, child, faults, place
from embedtrain.config.overrides import apply_override
from embedtrain.config.reader import Place, read_mapping
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import AnyStage
from embedtrain.config.types import Strict

Config = TypeVar("Config", bound=Strict)


@dataclass(frozen=True)
class Document:
    """A config file as it was read: its content, the place of each value, and the overrides by place."""

    path: Path | str
    data: dict[str, Any]
    places: dict[Location, Place]
    overrides: dict[Location, str]

    def messages(self, wrong: Sequence[Fault]) -> list[str]:
        """Faults as a user reads them, in the order of the file."""
        return [self.message(fault) for fault in sorted(wrong, key=self.order)]

    def message(self, fault: Fault) -> str:
        """A fault as a user reads it, led by the file or the override that it stands in."""
        hit = [text for spot, text in self.overrides.items() if fault.location[: len(spot)] == spot]
        origin = f"--set {hit[-1]}" if hit else str(self.path)
        return ": ".join(filter(None, (origin, place(fault.location, self.data), fault.text)))

    def order(self, fault: Fault) -> Place:
        """Where in the file a fault stands; one that is not in the file stands where its section does."""
        spots = (fault.location[:n] for n in range(len(fault.location), -1, -1))
        return next(self.places[spot] for spot in spots if spot in self.places)


def load_run(path: Path | str, overrides: Sequence[str] = ()) -> Run:
    """The run that a file describes. Raises ConfigError with all that is wrong in it."""
    return validate(read_document(path, overrides), Run)


def load_machine(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Machine:
    """The machine that a file describes; one CPU process where there is no file. Raises ConfigError."""
    if path is None:
        return validate(document({}, {}, "machine", overrides), Machine)
    return validate(read_document(path, overrides), Machine)


def read_document(path: Path | str, overrides: Sequence[str] = ()) -> Document:
    """A file and its overrides, not validated yet. Raises ConfigError."""
    return document(*read_mapping(path), path, overrides)


def document(
    data: dict[str, Any], places: dict[Location, Place], path: Path | str, overrides: Sequence[str] = ()
) -> Document:
    """Content with the overrides put in. Raises ConfigError with all overrides that fit nowhere."""
    spots: dict[Location, str] = {}
    messages = []
    for override in overrides:
        try:
            spots[apply_override(data, override)] = override
        except UserError as error:
            messages.append(str(error))
    if messages:
        raise ConfigError(messages)
    return Document(path, data, {(): (0, 0), **places}, spots)


def validate(read: Document, schema: type[Config]) -> Config:
    """The content as a frozen value. Raises ConfigError with every fault, in the order of the file."""
    value, wrong = examine(read, schema)
    if wrong or value is None:
        raise ConfigError(read.messages(wrong))
    return value


def examine(read: Document, schema: type[Config]) -> tuple[Config | None, list[Fault]]:
    """The content as a frozen value, and the faults in it.

    With faults, the value is what the file would be without them, for the checks that come after the schema;
    None where that cannot be said.
    """
    told = list(password_faults(read.data))
    try:
        return schema.model_validate(read.data), told
    except ValidationError as error:
        wrong = faults(error, read.data, schema)
        return without(read.data, wrong, schema), wrong + told


def password_faults(value: object, location: Location = ()) -> Iterator[Fault]:
    """Addresses with a password in them: what a file says is written into every run folder."""
    if isinstance(value, str) and PASSWORD.search(value):
        yield Fault(
            location,
            "holds an address with a user or password before its host, and would be stored with the run; "
            "leave it out: keys stand in environment variables",
        )
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for part, below in items:
        yield from password_faults(below, (*location, part))


def without(data: dict[str, Any], wrong: Sequence[Fault], schema: type[Config]) -> Config | None:
    """The value with faulty keys left to their defaults, or to a small number where there is no default."""
    data = deepcopy(data)
    for fault in wrong:
        drop(data, fault.location)
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        again = faults(error, data, schema)
    for fault in again:
        if fault.text in ("missing; expected a number", "missing; expected a whole number"):
            below(data, fault.location[:-1])[fault.location[-1]] = 2
    try:
        return schema.model_validate(data)
    except ValidationError:
        return None


def drop(data: Any, location: Location) -> None:
    """Take the value at a location out of its section."""
    section = below(data, location[:-1])
    if location and isinstance(section, dict):
        section.pop(location[-1], None)


def below(data: Any, location: Location) -> Any:
    """The value at a location, None where there is none."""
    for part in location:
        data = child(data, part)
    return data


def find_stage(run: Run, name: str) -> AnyStage:
    """The stage of that name. Raises UserError where there is none."""
    for stage in run.stages:
        if stage.name == name:
            return stage
    known = [stage.name for stage in run.stages]
    raise UserError(f"run '{run.name}' has no stage '{name}'; {nearest(name, known)}")


def resolved(run: Run) -> dict[str, Any]:
    """A run with every default written out, as JSON has it and with the keys of the file (`from`)."""
    return run.model_dump(mode="json", by_alias=True)
