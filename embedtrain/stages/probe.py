"""What only torch and the model's files can tell of a run, asked before its first stage starts."""

from pathlib import Path

from embedtrain.artifacts import read_json
from embedtrain.config.errors import ConfigError
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.model.layout import cut_layers, read_config, read_kind, set_attention
from embedtrain.model.load import require_transformers
from embedtrain.model.source import resolve_model


def probe(path: Path) -> None:
    """Fetch the base of the run in a JSON file and check it: version, layout, layers, attention, dims.

    Raises UserError, with all that is wrong. No weights are read.
    """
    run = Run.model_validate(read_json(path))
    require_transformers()
    base = run.base
    folder = resolve_model(base.model, revision=base.revision, sha256=base.sha256).path
    if not (folder / "config.json").is_file():
        return  # an adapter or a package of modules: its own parts are checked as they are read
    config = read_config(str(folder), base.model, trust_remote_code=base.trust_remote_code)
    kind = read_kind(config, base.model, trust_remote_code=base.trust_remote_code)
    cut_layers(config, base.keep_first_layers, base.model)
    set_attention(config, kind, run.encoder.attention, base.model)
    if (folder / "modules.json").is_file():
        return  # a Dense module may change the dims
    trains = [stage for stage in run.stages if isinstance(stage, Train)]
    wrong = [message for stage in trains for message in wide_dims(stage, config.hidden_size)]
    if wrong:
        raise ConfigError(wrong)


def wide_dims(stage: Train, dim: int) -> list[str]:
    """A message for each view of a stage that is wider than the model's vectors."""
    view = stage.objective.matryoshka
    return [
        f"stages '{stage.name}' > objective.matryoshka.dims: found {wanted}, "
        f"but the base's vectors have {dim} dims"
        for wanted in (view.dims if view else ())
        if wanted > dim
    ]
