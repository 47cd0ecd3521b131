"""What a token costs: multiply-accumulates of the linear layers in a backbone's layers."""

from typing import TYPE_CHECKING

from torch import nn

from embedtrain.config.errors import UserError
from embedtrain.model.layout import layers_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def macs_per_token(backbone: nn.Module) -> int | None:
    """Multiply-accumulates (half of the FLOPs) a token in the forward pass; None where the layout is unknown.

    Counted are the linear layers inside the stack of layers. What grows with a text's length, the products of
    attention, is left out, as are embeddings, norms, adapters, and what is done once a text (pooling, Dense).
    """
    try:
        stack = layers_of(backbone)
    except UserError:
        return None
    linears = ((n, m) for n, m in stack.named_modules() if isinstance(m, nn.Linear))
    return sum(m.in_features * m.out_features for name, m in linears if ".lora_" not in name)


def embedder_macs(model: "SentenceTransformer") -> int | None:
    """The same of a sentence-transformers model; None where its first module is no transformer."""
    backbone = getattr(model[0], "auto_model", None)
    return None if backbone is None else macs_per_token(backbone)
