"""Where a backbone keeps its layers, and the config switches that make it attend in both directions."""

from typing import Literal, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from embedtrain.config.errors import UserError

Kind = Literal["decoder", "encoder"]
LAYERS: dict[Kind, tuple[str, ...]] = {"decoder": ("layers",), "encoder": ("encoder.layer", "layers")}


def kind_of(backbone: nn.Module) -> Kind | None:
    """A decoder has `embed_tokens` and `layers`; an encoder `embeddings` of tokens and a stack of layers."""
    children = dict(backbone.named_children())
    if {"embed_tokens", "layers"} <= children.keys():
        return "decoder"
    has_tokens = "embeddings" in children and isinstance(token_embeddings(backbone), nn.Embedding)
    return "encoder" if has_tokens and find_stack(backbone, "encoder") else None


def token_embeddings(backbone: nn.Module) -> nn.Module:
    """The table of token vectors."""
    found: nn.Module = cast(PreTrainedModel, backbone).get_input_embeddings()
    return found


def find_stack(backbone: nn.Module, kind: Kind) -> str | None:
    """Name of the list of layers."""
    modules = dict(backbone.named_modules())
    return next((name for name in LAYERS[kind] if isinstance(modules.get(name), nn.ModuleList)), None)


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """The layers of a backbone that `kind_of` knows."""
    kind = kind_of(backbone)
    name = find_stack(backbone, kind) if kind else None
    if name is None:
        raise UserError(no_layout(type(backbone).__name__, backbone))
    stack = backbone.get_submodule(name)
    assert isinstance(stack, nn.ModuleList)
    return stack


def no_layout(what: str, backbone: nn.Module) -> str:
    """What is said of a model that is neither a decoder nor an encoder."""
    found = ", ".join(name for name, _ in backbone.named_children())
    return (
        f"{what} has neither a decoder's layout (embed_tokens, layers) nor a text encoder's "
        f"(embeddings of tokens, encoder.layer or layers); found: {found}"
    )


def read_kind(config: PretrainedConfig, origin: str, *, trust_remote_code: bool = False) -> Kind:
    """The layout of a config's model, known before any weight is read."""
    try:
        with torch.device("meta"):
            skeleton: nn.Module = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
    except ValueError as error:
        raise UserError(
            f"{origin}: model_type '{config.model_type}' is neither a decoder nor an encoder that "
            f"transformers can build: {str(error).splitlines()[0]}"
        ) from None
    kind = kind_of(skeleton)
    if kind is None:
        raise UserError(f"{origin}: {no_layout(f'model_type {config.model_type!r}', skeleton)}")
    return kind


def read_config(path: str, origin: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """config.json of a model folder."""
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{origin}: its config.json cannot be read: {str(error).splitlines()[0]}") from None


def is_gemma(config: PretrainedConfig) -> bool:
    """Whether transformers gives the family a switch of its own, read while the model is built."""
    return config.model_type.startswith("gemma")


def is_bidirectional(config: PretrainedConfig) -> bool:
    """What a decoder's config.json says of its attention."""
    values = config.to_dict()
    return values.get("is_causal") is False or (
        is_gemma(config) and bool(values.get("use_bidirectional_attention"))
    )


def longest_window(config: PretrainedConfig) -> int:
    """Tokens that a sliding window reaches, 0 where there is none shorter than the longest text."""
    values = config.to_dict()
    off = values.get("use_sliding_window") is False
    window = 0 if off else int(values.get("sliding_window") or values.get("local_attention") or 0)
    return window if window < config.max_position_embeddings else 0


def cut_layers(config: PretrainedConfig, keep: int | None, origin: str) -> None:
    """Let the config speak of the first `keep` layers only."""
    if keep is None:
        return
    total = config.num_hidden_layers
    if keep > total:
        raise UserError(f"{origin}: keep_first_layers is {keep}, the model has {total} layers")
    config.num_hidden_layers = keep
    if "layer_types" in config.to_dict() and config.layer_types is not None:
        config.layer_types = list(config.layer_types[:keep])


def set_attention(config: PretrainedConfig, kind: Kind, attention: str, origin: str) -> None:
    """Write the attention mode into the config, before the model is built from it."""
    if kind == "encoder":
        if attention == "causal":
            raise UserError(
                f"{origin}: encoder.attention is 'causal', but model_type '{config.model_type}' is an "
                "encoder and always attends in both directions"
            )
        return
    gemma = is_gemma(config)
    if gemma:
        config.use_bidirectional_attention = attention == "bidirectional"
    else:
        config.is_causal = attention == "causal"
    if attention == "bidirectional":
        open_windows(config, keep_types=gemma)


def open_windows(config: PretrainedConfig, *, keep_types: bool) -> None:
    """Every layer sees the whole text.

    A Gemma layer's type also picks its rotary base, so there the types stay and the window outgrows any text.
    """
    values = config.to_dict()
    if keep_types:
        config.sliding_window = config.max_position_embeddings + 1
        return
    if "sliding_window" in values:
        config.sliding_window = None
    if "use_sliding_window" in values:
        config.use_sliding_window = False
    if values.get("layer_types") is not None:
        config.layer_types = ["full_attention"] * config.num_hidden_layers


def to_float32(backbone: PreTrainedModel) -> None:
    """Widen the weights; the scale of a Gemma's embeddings was rounded with them and is computed anew."""
    backbone.float()
    if is_gemma(backbone.config):
        token_embeddings(backbone).get_buffer("embed_scale").fill_(backbone.config.hidden_size**0.5)
