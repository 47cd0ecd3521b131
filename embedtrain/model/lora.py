"""Low-rank adapters on a backbone: added from a seed, and merged back in float32."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from embedtrain.config.errors import UserError
from embedtrain.config.tuning import Lora
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of, to_float32

ADAPTER = "default"


class LowRankProduct(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T for a frozen W; x (..., in), W (out, in), A (r, in), B (out, r).

    Only x and x A^T are kept, and no tensor of the output's size is made besides the output.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        hidden = flat @ a.T
        y = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)
        y.addmm_(hidden, b.T, alpha=scale)
        ctx.save_for_backward(flat, hidden, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, hidden, weight, a, b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        g_hidden = (g @ b).mul_(ctx.scale)
        g_x = (g @ weight).addmm_(g_hidden, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return g_x, None, None, g_hidden.T @ flat, (g.T @ hidden).mul_(ctx.scale), None


class AdaptedLinear(LoraLinear):
    """peft's layer, computed as one product over plain weights where nothing else is asked of it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) to (..., out)."""
        base = self.get_base_layer()
        dropping = self.training and not isinstance(self.lora_dropout[ADAPTER], nn.Identity)
        if (
            dropping
            or type(base) is not nn.Linear
            or self.disable_adapters
            or self.merged
            or torch.is_autocast_enabled(x.device.type)
        ):
            return super().forward(x, *args, **kwargs)
        a, b = (part[ADAPTER].weight.to(x.dtype) for part in (self.lora_A, self.lora_B))
        return LowRankProduct.apply(x, base.weight, base.bias, a, b, self.scaling[ADAPTER])


class CastAtUse(nn.Linear):
    """A linear layer whose weight is brought to the activations' precision, never the other way round."""

    def forward(self, x: Tensor) -> Tensor:
        """The product in the precision of `x`."""
        return nn.functional.linear(x, self.weight.to(x.dtype))


def add_lora(encoder: Encoder, lora: Lora, seed: int) -> None:
    """Freeze the encoder and put trainable adapters on it.

    Adapters of the same shape that are there already go on training; others are first folded into the
    weights, and from then on a checkpoint holds all weights.
    """
    if encoder.lora is not None and encoder.lora == lora:
        return
    fold_lora(encoder)
    encoder.requires_grad_(False)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        target_modules=target_names(encoder.backbone, lora),
    )
    settings._register_custom_module({nn.Linear: AdaptedLinear})
    inject_adapter_in_model(settings, encoder.backbone)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(encoder.backbone):
        cast_at_use(layer)
        draw_first(layer.lora_A[ADAPTER].weight, generator)
    encoder.lora = lora


def tune_all(encoder: Encoder) -> None:
    """Fold any adapters and let every weight train, in float32 whatever the precision of the products."""
    if encoder.backbone.dtype == torch.bfloat16:
        to_float32(encoder.backbone)
    fold_lora(encoder)
    encoder.requires_grad_(True)


def target_names(backbone: nn.Module, lora: Lora) -> list[str]:
    """Full names of the linear layers to adapt: all inside the stack of layers, or those named."""
    inside = {id(module) for module in layers_of(backbone).modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in backbone.named_modules() if id(module) in inside]
    if lora.targets == "all_linear":
        return names
    known = sorted({name.rpartition(".")[2] for name in names})
    unknown = [target for target in lora.targets if target not in known]
    if unknown:
        raise UserError(
            f"lora.targets: no linear layer is named {unknown[0]!r}; the model has {', '.join(known)}"
        )
    return [name for name in names if name.rpartition(".")[2] in lora.targets]


def lora_layers(backbone: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Bare name and adapted layer, in order."""
    return ((name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLinear))


def cast_at_use(layer: LoraLinear) -> None:
    """Keep the adapter in float32 and its input as it comes; the weight is cast."""
    layer.cast_input_dtype_enabled = False
    for part in (layer.lora_A, layer.lora_B):
        old = part[ADAPTER]
        new = CastAtUse(old.in_features, old.out_features, bias=False, device="meta")
        dtype = torch.promote_types(old.weight.dtype, torch.float32)
        new.weight = nn.Parameter(old.weight.detach().to(dtype))
        part[ADAPTER] = new


def draw_first(weight: Tensor, generator: torch.Generator) -> None:
    """peft's own start of A, drawn on the CPU from our seed so that every device starts alike."""
    drawn = torch.empty(weight.shape, dtype=weight.dtype)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        weight.copy_(drawn)


def fold_lora(encoder: Encoder) -> None:
    """Put the merged weights in the place of the adapters."""
    for name, layer in list(lora_layers(encoder.backbone)):
        plain = layer.get_base_layer()
        with torch.no_grad():
            plain.weight.copy_(merged_weight(layer))
        parent, _, child = name.rpartition(".")
        setattr(encoder.backbone.get_submodule(parent), child, plain)
    if encoder.lora is not None:
        del encoder.backbone.peft_config
        encoder.folded = True
    encoder.lora = None


def merged_weight(layer: LoraLinear) -> Tensor:
    """W + scale x B x A, summed in float64 and rounded once: to float32, or kept in float64 where W is."""
    weight = layer.get_base_layer().weight.detach()
    product = layer.lora_B[ADAPTER].weight.detach().double() @ layer.lora_A[ADAPTER].weight.detach().double()
    merged = weight.double() + layer.scaling[ADAPTER] * product.to(weight.device)
    return merged.to(torch.promote_types(weight.dtype, torch.float32))
