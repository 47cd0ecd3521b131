"""Nothing that a user downloads runs code, and no model folder reaches out of itself."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from exports import change_json, tiny_encoder, tiny_export
from ingredients import save_peft
from malicious import move_module, poison, shard_outside, write_pickle
from test_model_cross_encoder import save_reranker
from test_model_existing import save_embedder
from tiny_models import save_tiny

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.causal_lm import open_causal_lm
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.cross_encoder import open_cross_encoder
from embedtrain.model.ingredients import open_ingredient
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.router import copy_route
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


def test_a_good_folder_of_each_kind_opens(tmp_path: Path) -> None:
    """What the tests above break, works as it was."""
    _, folder = tiny_export(tmp_path)
    assert read_json(folder / "modules.json")[0]["path"] == ""
    for use in (open_encoder, open_sentence_transformer, as_ingredient, as_served):
        use(folder)
