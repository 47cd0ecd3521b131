"""What a stage is given: the run, its own entry, the machine, and the folders to read and write."""

from dataclasses import dataclass
from pathlib import Path

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import AnyStage

STAGE_FILE = "stage.json"
ROWS = "rows"


@dataclass(frozen=True)
class StageContext:
    """`folder` is the unfinished folder to write into; `inputs` maps stage names to finished folders."""

    run: Run
    stage: AnyStage
    machine: Machine
    folder: Path
    inputs: dict[str, Path]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.seed

    @property
    def vector_store(self) -> Path:
        """Vectors of the run's texts, beside the stage folders: a later stage encodes only what is new."""
        return self.folder.parent / "vectors"


def read_context(folder: Path) -> StageContext:
    """The context that the pipeline wrote into an unfinished stage folder.

    Raises UserError where it would read what is no folder of the run.
    """
    saved = read_json(folder / STAGE_FILE)
    inputs = {name: Path(path) for name, path in saved["inputs"].items()}
    for name, path in inputs.items():
        if not beside(folder, path):
            raise UserError(
                f"{folder / STAGE_FILE}: inputs > {name}: found '{path}', expected a folder beside {folder}"
            )
    run = Run.model_validate(saved["run"])
    return StageContext(
        run=run,
        stage=find_stage(run, saved["stage"]),
        machine=Machine.model_validate(saved["machine"]),
        folder=folder,
        inputs=inputs,
    )


def beside(folder: Path, other: Path) -> bool:
    """Whether both are folders of one run."""
    return other.name != ".." and other.parent.resolve() == folder.parent.resolve()


def stage_rows(folder: Path, name: str) -> Path | None:
    """What a filter or select stage wrote of a source: `rows/NAME.parquet` or the folder `rows/NAME`."""
    paths = (folder / ROWS / f"{name}.parquet", folder / ROWS / name)
    return next((path for path in paths if path.exists()), None)
