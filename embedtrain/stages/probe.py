"""What only torch and the model's files can tell of a run, asked before its first stage starts."""

from functools import cache, partial
from pathlib import Path

from embedtrain.artifacts import read_json
from embedtrain.config.check import sources_of
from embedtrain.config.distilling import Distil, StoredTeacher
from embedtrain.config.references import teacher_of
from embedtrain.config.schema import Run
from embedtrain.config.stages import AnyStage, Train
from embedtrain.data.store import RowStore, open_source
from embedtrain.model.layout import cut_layers, read_config, read_kind, set_attention
from embedtrain.model.load import require_transformers
from embedtrain.model.source import resolve_model
from embedtrain.stages.preflight import require, row_faults, view_faults
from embedtrain.stages.stored_vectors import open_stored


def probe(path: Path) -> None:
    """Fetch what the run in a JSON file starts from and check it: version, layout, layers, attention, dims.

    Teachers are fetched too, and the rows of stages that read the sources as they are, are looked at. Raises
    UserError, with all that is wrong. No weights are read.
    """
    run = Run.model_validate(read_json(path))
    require_transformers()
    dim = base_dim(run)
    names = {stage.name for stage in run.stages}

    @cache
    def read(name: str) -> RowStore:
        return open_source(run.sources[name], name, run.seed)

    faults: list[str] = []
    for stage in run.stages:
        require_teacher(stage, names)
        if not isinstance(stage, Train):
            continue
        if stage.rows is None:
            files = {name: partial(read, name) for name in sources_of(run, stage)}
            faults += row_faults(run, stage, files)
        faults += view_faults(stage, dim) if dim else ()
    require(faults)


def require_teacher(stage: AnyStage, names: set[str]) -> None:
    """Fetch a teacher that is none of the run's stages; look at vectors that are there already."""
    if (named := teacher_of(stage)) and named[1].model not in names:
        resolve_model(named[1].model, revision=named[1].revision, sha256=named[1].sha256)
    if isinstance(stage, Distil) and isinstance(stage.teacher, StoredTeacher):
        open_stored(Path(stage.teacher.folder).expanduser())


def base_dim(run: Run) -> int | None:
    """Dims of the base's vectors, its other facts checked; None where only its weights tell."""
    base = run.base
    folder = resolve_model(base.model, revision=base.revision, sha256=base.sha256).path
    if not (folder / "config.json").is_file():
        return None  # an adapter or a package of modules: its own parts are checked as they are read
    config = read_config(str(folder), base.model, trust_remote_code=base.trust_remote_code)
    kind = read_kind(config, base.model, trust_remote_code=base.trust_remote_code)
    cut_layers(config, base.keep_first_layers, base.model)
    set_attention(config, kind, run.encoder.attention, base.model)
    if (folder / "modules.json").is_file():
        return None  # a Dense module may change the dims
    return int(config.hidden_size)
