"""Model folders made to run code or to reach out of themselves, and the mark that they would leave."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from exports import change_json

from embedtrain.artifacts import write_json

CODE = "from pathlib import Path\nPath({mark!r}).touch()\n"


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def write_pickle(path: Path, mark: Path) -> None:
    """Weights as torch.save writes them, that leave the mark."""
    torch.save({"embed_tokens.weight": Payload(mark)}, path)
    torch.load(path, weights_only=False)["embed_tokens.weight"].close()
    assert mark.exists()  # the payload works
    mark.unlink()
    assert pickle.loads(pickle.dumps(Payload(mark))).close() is None
    assert mark.exists()
    mark.unlink()


def poison(folder: Path, mark: Path, weights: str = "model.safetensors") -> Path:
    """Swap the weights of a folder for a pickle of the old name."""
    (folder / weights).unlink()
    old = weights.replace("model.safetensors", "pytorch_model.bin")
    write_pickle(folder / old.replace("adapter_pytorch_", "adapter_"), mark)
    return folder


def add_code(folder: Path, mark: Path, model_type: str | None) -> Path:
    """Code in the folder that config.json asks to run, for a family of its own where a type is given."""
    body = CODE.format(mark=str(mark))
    (folder / "own.py").write_text(body)
    exec(compile(body, "own.py", "exec"))
    assert mark.exists()  # the code works
    mark.unlink()
    classes = {"AutoConfig": "own.C", "AutoModel": "own.M", "AutoModelForCausalLM": "own.M"}
    changes = {"auto_map": classes} | ({"model_type": model_type} if model_type else {})
    change_json(folder / "config.json", lambda config: config.update(changes))
    return folder


def move_module(folder: Path, number: int, path: str) -> Path:
    """Let modules.json name another place for a module."""
    change_json(folder / "modules.json", lambda modules: modules[number].update(path=path))
    return folder


def shard_outside(folder: Path, name: str) -> Path:
    """An index of weights that names a file elsewhere, where the true weights are."""
    place = Path(name) if Path(name).is_absolute() else folder / name
    (folder / "model.safetensors").rename(place)
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"norm.weight": name}})
    return folder
