"""Models on disk as readers of tensors: every kind gives what the built model holds."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from exports import tiny_export
from ingredients import SHAPES, adapted_encoder, save_adapters, save_full, save_peft
from safetensors.torch import load_file, save_file
from test_model_existing import save_embedder
from tiny_models import DECODERS, ENCODERS, save_tiny
from torch import Tensor

from embedtrain.average import average, open_tensors, write_sharded
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.checkpoint import all_tensors, save_encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.ingredients import check_alike, open_base, open_ingredient
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.lora import fold_lora


def held(path: Path | str) -> dict[str, Tensor]:
    """What the built model holds."""
    return {name: tensor.clone() for name, tensor in all_tensors(open_encoder(path))}


def read(path: Path | str) -> tuple[dict[str, Tensor], str]:
    """What the ingredient reads, and its kind."""
    with ExitStack() as stack:
        found = open_ingredient(path, stack)
        assert found.origin == str(path)
        return {name: found.tensors.read(name).clone() for name in found.tensors.info}, found.kind


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    assert all(one[name].shape == other[name].shape for name in one)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_every_kind_reads_what_the_model_holds(tmp_path: Path, family: str) -> None:
    encoder, export = tiny_export(tmp_path, family)
    adapter = save_encoder(encoder, tmp_path / "adapter")
    full = save_full(adapter, tmp_path / "full")
    for path, kind in ((adapter, "adapter"), (full, "checkpoint"), (export, "export")):
        tensors, found = read(path)
        assert found == kind
        assert largest_difference(tensors, held(path)) < 1e-7


@pytest.mark.parametrize("lora", SHAPES)
def test_an_adapter_is_its_product_on_the_base(tmp_path: Path, lora: Lora) -> None:
    """Against loops over single numbers: W + scale x B A, in Python floats."""
    path = save_encoder(adapted_encoder(tmp_path, lora, 1), tmp_path / "adapter")
    stored, base = load_file(path / "adapter.safetensors"), load_file(tmp_path / "base/model.safetensors")
    tensors, _ = read(path)
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    names = [name.removesuffix(".lora_A.weight") for name in stored if ".lora_A." in name]
    for name in names[::5]:
        a, b = (stored[f"{name}.lora_{part}.weight"].tolist() for part in "AB")
        weight = base[f"{name}.weight"].tolist()
        wanted = [
            [
                number + scale * sum(b[row][k] * a[k][column] for k in range(lora.rank))
                for column, number in enumerate(line)
            ]
            for row, line in enumerate(weight)
        ]
        assert torch.equal(tensors[f"{name}.weight"], torch.tensor(wanted, dtype=torch.float64).float())
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, base[name])}
    assert changed == {f"{name}.weight" for name in names}


def test_the_soup_of_adapters_is_that_of_merged_models(tmp_path: Path) -> None:
    """Different ranks, alphas, scales and layers; the average of the factors would be something else."""
    adapters = save_adapters(tmp_path)
    full = [save_full(path, tmp_path / f"full{number}") for number, path in enumerate(adapters)]
    with ExitStack() as stack:
        soups = []
        for paths in (adapters, full):
            parts = [open_ingredient(path, stack) for path in paths]
            check_alike(parts)
            soup = average([part.tensors for part in parts])
            soups.append({name: soup.read(name) for name in soup.info})
    assert largest_difference(*soups) < 1e-6
    assert largest_difference(soups[0], held(adapters[0])) > 1e-2  # the premise


def test_adapters_know_their_base(tmp_path: Path) -> None:
    [path] = save_adapters(tmp_path, SHAPES[:1])
    peft_path = save_peft(tmp_path / "peft", tmp_path / "base")
    stored = load_file(tmp_path / "base/model.safetensors")
    with ExitStack() as stack:
        own, other = open_ingredient(path, stack), open_ingredient(peft_path, stack)
        for found in (own, other):
            assert found.base is not None
            assert found.base.info == found.tensors.info
            assert all(torch.equal(found.base.read(name), stored[name]) for name in found.base.info)
        assert own.facts["base"] == other.facts["base"]
        assert open_ingredient(save_full(path, tmp_path / "full"), stack).base is None


@pytest.mark.parametrize("rslora", [False, True])
def test_a_peft_folder_reads_what_peft_merges(tmp_path: Path, rslora: bool) -> None:
    """With patterns of ranks and alphas, which peft itself reads."""
    base = save_tiny("llama", tmp_path / "base", head=True)
    path = save_peft(tmp_path / "peft", base, use_rslora=rslora)
    tensors, kind = read(path)
    assert kind == "adapter"
    assert largest_difference(tensors, held(path)) < 1e-6
    assert largest_difference(tensors, {n: t for n, t in base_tensors(base).items() if n in tensors}) > 1e-2


def base_tensors(folder: Path) -> dict[str, Tensor]:
    """A plain model's tensors, without the prefix that a head brings."""
    stored = load_file(folder / "model.safetensors")
    return {name.removeprefix("model."): tensor for name, tensor in stored.items()}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        (
            {"target_modules": ["q_proj", "embed_tokens"], "rank_pattern": {}, "alpha_pattern": {}},
            "embed_tokens.lora_embedding_A",
        ),
    ],
)
def test_other_adapters_are_refused(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    path = save_peft(tmp_path / "peft", save_tiny("llama", tmp_path / "base"), **settings)
    with pytest.raises(UserError, match=f"only plain LoRA on linear .*, found .*{says}.*; merge"):
        read(path)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_folder_of_sentence_transformers_reads_what_the_model_holds(
    tmp_path: Path, family: str, dense: bool
) -> None:
    save_embedder(tmp_path / "st", family, dense=dense)
    tensors, kind = read(tmp_path / "st")
    assert kind == "export"
    assert ("dense.0.weight" in tensors) == dense
    assert not any(name.startswith("pooler") for name in tensors)
    assert torch.equal(tensors["dense.0.weight"], held(tmp_path / "st")["dense.0.weight"]) if dense else True
    assert largest_difference(tensors, held(tmp_path / "st")) == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_shards_and_precisions_stay(tmp_path: Path, precision: str) -> None:
    encoder, _ = tiny_export(tmp_path)
    export_encoder(encoder, tmp_path / "small", precision=precision, max_shard_bytes=20_000)
    assert len(list((tmp_path / "small").glob("model-*.safetensors"))) > 2
    with ExitStack() as stack:
        found = open_ingredient(tmp_path / "small", stack)
        assert found.facts["dtype"] == precision
        assert {info.dtype for info in found.tensors.info.values()} == {getattr(torch, precision)}
        wanted = open_tensors(tmp_path / "small", stack)
        assert all(torch.equal(found.tensors.read(name), wanted.read(name)) for name in wanted.info)


def test_a_base_loses_its_head_and_the_layers_that_were_cut(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base", head=True)
    model = Base(model=str(base), keep_first_layers=2)
    path = save_encoder(load_encoder(model, EncoderConfig(), TextFormat()), tmp_path / "cut")
    with ExitStack() as stack:
        found = open_ingredient(path, stack)
        opened = open_base(Base(model=str(base)), found, stack)
        assert opened.info == found.tensors.info
        assert not any("layers.2." in name or "lm_head" in name for name in opened.info)
        assert all(torch.equal(opened.read(name), base_tensors(base)[name]) for name in opened.info)
        again = open_base(Base(model=str(path)), found, stack)
        assert again.info == opened.info


def test_names_of_old_norms_are_known(tmp_path: Path) -> None:
    """BERTs saved before 2019 call a norm's weight gamma, and stand below `bert.`."""
    save_embedder(tmp_path / "st")
    wanted, _ = read(tmp_path / "st")
    weights = next((tmp_path / "st").rglob("model.safetensors"))
    old = {}
    for name, tensor in load_file(weights).items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[f"bert.{name}"] = tensor
    save_file(old | {"cls.seq_relationship.bias": torch.zeros(2)}, weights)
    found, _ = read(tmp_path / "st")
    assert largest_difference(found, wanted) == 0


def test_an_adapter_on_other_weights_is_refused(tmp_path: Path) -> None:
    [path] = save_adapters(tmp_path, SHAPES[:1])
    save_tiny("llama", tmp_path / "base", seed=5)
    with pytest.raises(UserError) as built:
        open_encoder(path)
    with pytest.raises(UserError, match=r"its adapter was trained on .*, but that") as error:
        read(path)
    assert str(error.value) == str(built.value)


def test_a_folder_of_none_of_the_kinds_is_refused(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "plain")
    with pytest.raises(UserError, match=r"/plain: nothing to average; found neither encoder\.json"):
        read(tmp_path / "plain")


def test_the_hash_is_of_the_weights(tmp_path: Path) -> None:
    [one, two] = save_adapters(tmp_path, SHAPES[:2])
    shutil.copytree(one, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("other words")
    with ExitStack() as stack:
        hashes = [open_ingredient(path, stack).hash for path in (one, tmp_path / "copy", two)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_folded_checkpoints_are_full(tmp_path: Path) -> None:
    encoder = adapted_encoder(tmp_path, SHAPES[0], 1)
    fold_lora(encoder)
    _, kind = read(save_encoder(encoder, tmp_path / "full"))
    assert kind == "checkpoint"


def test_several_files_written_by_us_are_read(tmp_path: Path) -> None:
    [path] = save_adapters(tmp_path, SHAPES[:1])
    full = save_full(path, tmp_path / "full")
    with ExitStack() as stack:
        tensors = open_tensors(full, stack)
        (tmp_path / "parts").mkdir()
        write_sharded(tmp_path / "parts", tensors, 30_000)
        wanted, _ = read(full)
    (full / "model.safetensors").unlink()
    for file in (tmp_path / "parts").iterdir():
        shutil.move(file, full / file.name)
    found, _ = read(full)
    assert largest_difference(found, wanted) == 0
