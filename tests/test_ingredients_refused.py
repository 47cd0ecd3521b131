"""Models on disk that are damaged, and models that differ: each fault is named."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from exports import change_json, tiny_export
from ingredients import SHAPES, save_adapters, save_peft
from safetensors.torch import load_file, save_file
from test_ingredients import read
from tiny_models import save_tiny

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.ingredients import check_alike, open_ingredient
from embedtrain.model.load import load_encoder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """An export in several files."""
    encoder, _ = tiny_export(tmp_path)
    export_encoder(encoder, tmp_path / "shards", max_shard_bytes=40_000)
    return tmp_path / "shards"


def refusal(path: Path) -> str:
    """What is said of a damaged folder."""
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    index = sharded / "model.safetensors.index.json"
    assert refusal(sharded) == f"{index}: it names {shard.name}, which is not there"
    index.unlink()
    assert refusal(sharded) == (
        f"{sharded}: its weights are in several files, but model.safetensors.index.json is not there"
    )


def test_an_index_of_other_tensors_is_refused(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    first = min(sharded.glob("model-*.safetensors")).name
    change_json(index, lambda value: value["weight_map"].update({"layers.9.extra": first}))
    assert refusal(sharded) == f"{index}: it names 1 tensors that no file has, first layers.9.extra"
    index.write_text('{"weights": 3}')
    assert refusal(sharded) == f"{index}: it is no index of weights; expected JSON with 'weight_map'"


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(sharded: Path, kept: float) -> None:
    shard = min(sharded.glob("model-*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(kept * len(whole))])
    size = f"{int(kept * len(whole)):,} bytes"
    assert refusal(sharded).startswith(f"{shard}: it is not a whole safetensors file ({size}: ")


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    _, export = tiny_export(tmp_path)
    weights = export / "model.safetensors"
    stored = load_file(weights)
    save_file({name: t for name, t in stored.items() if "layers.1.mlp" not in name}, weights)
    assert refusal(export) == f"{export}: 3 weights are missing, first layers.1.mlp.gate_proj.weight"
    save_file(stored | {"norm.weight": torch.ones(31)}, weights)
    assert refusal(export) == (
        f"{export}: tensor 'norm.weight' has the shape (31,), its config.json says (32,)"
    )
    shutil.move(weights, export / "pytorch_model.bin")
    assert refusal(export) == f"{export}: no model.safetensors there (pickles are not read)"


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    [path] = save_adapters(tmp_path, SHAPES[:1])
    stored = load_file(path / "adapter.safetensors")
    name = "layers.0.mlp.up_proj"
    save_file(stored | {f"{name}.lora_A.weight": torch.ones(2, 31)}, path / "adapter.safetensors")
    assert refusal(path) == (
        f"{path}: its adapter does not fit {tmp_path / 'base'}: '{name}.weight' has the shape (64, 32), "
        "the adapter's factors (64, 2) and (2, 31)"
    )


def test_all_that_differs_is_said_at_once(tmp_path: Path) -> None:
    [one, two] = save_adapters(tmp_path, SHAPES[:2])
    bare = EncoderConfig(attention="causal", pooling="last_token")
    text = TextFormat(query="find: {text}")
    smaller = save_tiny("llama", tmp_path / "smaller", intermediate_size=48, seed=3)
    other = load_encoder(Base(model=str(smaller)), bare, text, precision="bfloat16")
    three = save_encoder(other, tmp_path / "three")
    with ExitStack() as stack:
        parts = [open_ingredient(path, stack) for path in (one, two, three)]
        check_alike(parts[:2])
        with pytest.raises(UserError) as error:
            check_alike(parts)
    assert str(error.value).splitlines() == [
        "these models cannot be averaged, they differ:",
        f"  attention: bidirectional in {one}, {two}; causal in {three}",
        f"  pooling: mean in {one}, {two}; last_token in {three}",
        f"  query template: 'query: {{text}}' in {one}, {two}; 'find: {{text}}' in {three}",
        f"  document template: 'text: {{text}}' in {one}, {two}; '{{text}}' in {three}",
        *(
            f"  layers.{layer}.mlp.{name}_proj.weight: {shape} in {one}, {shorter} in {three}"
            for layer, name, shape, shorter in (
                (0, "gate", "64x32", "48x32"),
                (0, "up", "64x32", "48x32"),
                (0, "down", "32x64", "32x48"),
                (1, "gate", "64x32", "48x32"),
                (1, "up", "64x32", "48x32"),
            )
        ),
        f"  and 4 more tensors of {three}",
    ]


def test_adapters_of_other_bases_are_refused(tmp_path: Path) -> None:
    [one] = save_adapters(tmp_path / "a", SHAPES[:1])
    base = save_tiny("llama", tmp_path / "b", seed=5)
    two = save_peft(tmp_path / "peft", base)
    with ExitStack() as stack:
        parts = [open_ingredient(path, stack) for path in (one, two)]
        with pytest.raises(UserError) as error:
            check_alike(parts)
        hashes = [part.facts["base"] for part in parts]
    assert hashes[0] != hashes[1]
    wanted = f"  base: {hashes[0]} in {one} ({tmp_path / 'a/base'}); {hashes[1]} in {two} ({two})"
    assert wanted in str(error.value).splitlines()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda c: c.update(num_attention_heads=8, num_key_value_heads=4, head_dim=4), "num_attention_heads"),
        (lambda c: c["rope_parameters"].update(rope_theta=5.0), "rope_parameters"),
    ],
)
def test_settings_that_show_in_no_shape_are_compared(tmp_path: Path, change: object, key: str) -> None:
    _, export = tiny_export(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(export, other)
    change_json(other / "config.json", change)
    with ExitStack() as stack, pytest.raises(UserError, match=f"  {key}: "):
        check_alike([open_ingredient(path, stack) for path in (export, other)])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precisions_and_tokenizers_are_compared(tmp_path: Path, precision: str) -> None:
    encoder, export = tiny_export(tmp_path)
    export_encoder(encoder, tmp_path / "half", precision=precision)
    change_json(tmp_path / "half" / "tokenizer.json", lambda value: value.update(normalizer={"type": "NFC"}))
    with ExitStack() as stack:
        parts = [open_ingredient(path, stack) for path in (export, tmp_path / "half")]
        with pytest.raises(UserError) as error:
            check_alike(parts)
    tokenizers = [part.facts["tokenizer"] for part in parts]
    assert str(error.value).splitlines()[1:] == [
        f"  tokenizer: {tokenizers[0]} in {export}; {tokenizers[1]} in {tmp_path / 'half'}",
        f"  dtype: float32 in {export}; {precision} in {tmp_path / 'half'}",
    ]


def test_an_export_and_its_checkpoint_are_alike(tmp_path: Path) -> None:
    """Limits may differ: a folder holds one for both sides."""
    encoder, export = tiny_export(tmp_path)
    path = save_encoder(encoder, tmp_path / "checkpoint")
    with ExitStack() as stack:
        parts = [open_ingredient(one, stack) for one in (path, export)]
        assert parts[0].facts["limits"] != parts[1].facts["limits"]
        check_alike(parts)
