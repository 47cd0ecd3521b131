"""The low-rank product in one go is peft's own sum of layers, value and gradient."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from embedtrain.model.lora import ADAPTER, AdaptedLinear, LowRankProduct, cast_at_use


def adapted(dtype: torch.dtype, *, bias: bool = True, dropout: float = 0.0, ours: bool = True) -> LoraLinear:
    """A frozen layer of 24 to 40 dims with an adapter of rank 4, both filled; the same on every call."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(24, 40, bias=bias)).requires_grad_(False).to(dtype)
    settings = LoraConfig(r=4, lora_alpha=6, target_modules=["0"], lora_dropout=dropout)
    if ours:
        settings._register_custom_module({nn.Linear: AdaptedLinear})
    inject_adapter_in_model(settings, model)
    layer = model[0]
    assert type(layer) is (AdaptedLinear if ours else LoraLinear)
    cast_at_use(layer)
    generator = torch.Generator().manual_seed(4)
    for part in (layer.lora_A, layer.lora_B):
        weight = part[ADAPTER].weight
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
    return layer.train()


def run(layer: LoraLinear, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of a weighing of it by the input, A and B."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    (y.double() * weights).sum().backward()
    gradients = [x.grad, layer.lora_A[ADAPTER].weight.grad, layer.lora_B[ADAPTER].weight.grad]
    assert all(g is not None for g in gradients)
    return [y.detach(), *(g for g in gradients if g is not None)]


def inputs(dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_it_is_pefts_sum(dtype: torch.dtype, bound: float, bias: bool) -> None:
    ours, theirs = (run(adapted(dtype, bias=bias, ours=ours), inputs(dtype)) for ours in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert (one.double() - other.double()).norm() <= bound * other.double().norm()


def test_gradients_of_adapters_are_float32_beside_bfloat16() -> None:
    _, x_grad, *of_adapters = run(adapted(torch.bfloat16), inputs(torch.bfloat16))
    assert x_grad.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in of_adapters)


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(6)
    x, weight, bias, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 5), (4, 5), (4,), (2, 5), (4, 2))
    )
    trained = [t.requires_grad_() for t in (x, a, b)]

    def product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return LowRankProduct.apply(x, weight, bias, a, b, 1.5)

    assert torch.autograd.gradcheck(product, trained)


@pytest.mark.parametrize("change", ["dropout", "merged", "disabled"])
def test_anything_else_is_left_to_peft(change: str) -> None:
    """Dropout draws the same; a merged adapter counts once, a disabled one not at all."""

    def changed(ours: bool) -> Tensor:
        layer = adapted(torch.float32, dropout=0.5 if change == "dropout" else 0.0, ours=ours)
        if change == "merged":
            layer.merge()
        if change == "disabled":
            layer.enable_adapters(False)
        torch.manual_seed(8)
        return layer(inputs(torch.float32))

    assert torch.equal(changed(True), changed(False))
    if change == "dropout":
        assert not torch.allclose(changed(True), adapted(torch.float32)(inputs(torch.float32)))


def test_less_is_kept_than_by_peft() -> None:
    """Bytes of tensors kept for the backward pass, weights left out."""

    def kept(layer: LoraLinear) -> int:
        seen: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            if not isinstance(x, nn.Parameter):
                seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            x = inputs(torch.float32)
            layer(x)
        return sum(seen.values())

    hidden_and_input = 14 * (24 + 4) * 4
    assert kept(adapted(torch.float32)) == hidden_and_input <= kept(adapted(torch.float32, ours=False))
