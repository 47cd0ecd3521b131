"""A run on a tiny base in a folder, and what the pipeline gives one of its stages."""

from pathlib import Path

from exports import PLAIN

from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.stages.context import StageContext


def tiny_run(folder: Path, sources: dict[str, dict], stage: dict[str, object]) -> Run:
    """A run of one stage, and an export of its base named `taught`, on the sources' files in the folder."""
    return Run.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "base": {"model": str(folder / "base")},
            "text": PLAIN.model_dump(),
            "sources": {name: {"rows": str(folder / f"{name}.parquet")} | s for name, s in sources.items()},
            "stages": [{"name": "taught", "kind": "export", "from": "base"}, stage],
        }
    )


def tiny_context(
    run: Run, stage: str, name: str, machine: Machine | None = None, **inputs: Path
) -> StageContext:
    """A stage as the pipeline would start it, in a folder of this name."""
    folder = Path(run.folder) / run.name / name
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext(run, find_stage(run, stage), machine or Machine(), folder, inputs)
