"""An encoder on disk: spec, tokenizer, config and either an adapter or all weights.

`encoder.json` says how states become vectors, where the base came from and what its weights hash to, so that
an adapter is never put on another base and never loses its attention mode.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig

from embedtrain.artifacts import flush, put_in_place, read_json, write_atomic, write_json
from embedtrain.average import Tensors, tensors_in_memory
from embedtrain.config.errors import UserError
from embedtrain.config.tuning import Lora
from embedtrain.model.encoder import Encoder, EncoderSpec, hash_tensors
from embedtrain.model.lora import add_lora, fold_lora
from embedtrain.model.merged import merged_readers

FORMAT = 1
SPEC = "encoder.json"
ADAPTER_WEIGHTS = "adapter.safetensors"
WEIGHTS = "model.safetensors"
LEARNED = "learned.safetensors"
DENSE = "dense."


@dataclass(frozen=True)
class Saved:
    """What encoder.json holds: `lora` is None where all weights are in the folder."""

    spec: EncoderSpec
    lora: Lora | None
    base_weights: str | None
    dtype: str


def save_encoder(encoder: Encoder, folder: Path | str) -> Path:
    """Write the encoder: its adapter alone where the base is as it was loaded, else all weights, merged.

    What its objective learned besides stands in a file of its own, which no stage reads back.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    adapter_only = encoder.lora is not None and not encoder.folded
    if adapter_only:
        save_tensors({name: p.detach() for name, p in adapter_parameters(encoder)}, folder / ADAPTER_WEIGHTS)
    else:
        save_tensors(dict(all_tensors(encoder)), folder / WEIGHTS)
        if encoder.dense is not None:
            save_dense(encoder.dense, folder)
    if encoder.learned:
        save_tensors({name: p.detach() for name, p in encoder.learned.items()}, folder / LEARNED)
    lora = encoder.lora if adapter_only else None
    base_weights = encoder.base_hash or hash_tensors(base_parameters(encoder)) if adapter_only else None
    dtype = str(encoder.backbone.dtype).removeprefix("torch.")
    config = encoder.backbone.config
    config.architectures = [encoder.architecture]
    write_spec(folder, Saved(encoder.spec, lora, base_weights, dtype), encoder.tokenizer, config)
    return folder


def write_spec(folder: Path, saved: Saved, tokenizer: Tokenizer, config: PretrainedConfig) -> None:
    """The files of a checkpoint beside its weights; `encoder.json` last."""
    tokenizer.save(str(folder / "tokenizer.json"))
    write_atomic(folder / "config.json", config.to_json_string(use_diff=False))
    write_atomic(folder / "README.md", f"An embedtrain checkpoint. {saved.spec.describe()}.\n")
    write_json(
        folder / SPEC,
        {
            "format": FORMAT,
            "spec": saved.spec.to_json(),
            "lora": saved.lora.model_dump() if saved.lora else None,
            "base_weights": saved.base_weights,
            "dtype": saved.dtype,
        },
    )


def read_saved(folder: Path) -> Saved:
    """encoder.json of a checkpoint."""
    values = read_json(folder / SPEC)
    if values["format"] != FORMAT:
        raise UserError(f"{folder / SPEC}: format {values['format']}, this embedtrain reads format {FORMAT}")
    lora = None if values["lora"] is None else Lora.model_validate_json(json.dumps(values["lora"]))
    return Saved(EncoderSpec.from_json(values["spec"]), lora, values["base_weights"], values["dtype"])


def check_base(encoder: Encoder, saved: Saved, folder: Path) -> None:
    """Raise UserError where the base is not the one the adapter was trained on."""
    found = hash_tensors(base_parameters(encoder))
    if found != saved.base_weights:
        raise UserError(
            f"{folder}: its adapter was trained on {saved.spec.base} with weights {saved.base_weights}, "
            f"but that base now has weights {found}"
        )


def fill_adapter(encoder: Encoder, lora: Lora, folder: Path) -> None:
    """Put the saved adapter on a freshly loaded base."""
    add_lora(encoder, lora, seed=0)
    stored = tensors_in_memory(load_file(folder / ADAPTER_WEIGHTS), str(folder))
    copy_tensors(dict(adapter_parameters(encoder)), stored)


def set_weights(encoder: Encoder, tensors: Tensors) -> None:
    """Replace all weights, for example by an average, one at a time; adapters are folded first."""
    fold_lora(encoder)
    encoder.folded = True
    copy_tensors(all_parameters(encoder), tensors)


def copy_tensors(targets: Mapping[str, Tensor], tensors: Tensors) -> None:
    """Copy by name; the names must be the same."""
    odd = sorted(targets.keys() ^ tensors.info.keys())
    if odd:
        raise UserError(
            f"{tensors.origin}: its tensors are not the encoder's: {len(odd)} names differ, first {odd[0]}"
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors.read(name))


def all_tensors(encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    """Merged tensors of backbone and Dense, one at a time: what a full checkpoint and an average hold."""
    merged = merged_readers(encoder, encoder.spec.base)
    yield from ((name, merged.read(name)) for name in merged.info)
    if encoder.dense is not None:
        yield from ((DENSE + name, p.detach()) for name, p in encoder.dense.named_parameters())


def all_parameters(encoder: Encoder) -> dict[str, Tensor]:
    """The parameters behind `all_tensors`, without adapters."""
    dense = [] if encoder.dense is None else encoder.dense.named_parameters()
    return dict(encoder.backbone.named_parameters()) | {DENSE + name: p for name, p in dense}


def adapter_parameters(encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    """A and B of every adapted layer, by bare names."""
    pairs = encoder.backbone.named_parameters()
    return ((name.replace(".default.", "."), p) for name, p in pairs if ".lora_" in name)


def base_parameters(encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    """Parameters below the adapters, by the names they have without them."""
    pairs = encoder.weights()
    return ((name.replace(".base_layer.", "."), p) for name, p in pairs if ".lora_" not in name)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file, whole or absent."""
    aside = path.with_name(path.name + ".partial")
    whole = {name: t.contiguous().cpu() for name, t in tensors.items()}
    with put_in_place(aside, path):
        save_file(whole, aside, metadata={"format": "pt"})
        flush(aside)
    flush(path.parent)


def save_dense(dense: nn.Module, folder: Path) -> None:
    """The shapes of each Dense, as sentence-transformers writes them, with its weights."""
    parts = list(dense.children())
    for index, (linear, activation) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        assert isinstance(linear, nn.Linear)
        place = folder / f"dense_{index}"
        place.mkdir(exist_ok=True)
        kind = type(activation)
        shape = {"in_features": linear.in_features, "out_features": linear.out_features}
        named = {"bias": linear.bias is not None, "activation_function": f"{kind.__module__}.{kind.__name__}"}
        write_json(place / "config.json", shape | named)
        save_tensors({f"linear.{name}": p.detach() for name, p in linear.named_parameters()}, place / WEIGHTS)
