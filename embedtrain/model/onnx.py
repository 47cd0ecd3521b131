"""An exported folder as an ONNX graph: token ids in, the vectors of sentence-transformers out.

Dimensions: T texts, L tokens of the longest, D dims of a state, K of a vector.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder, quiet
from embedtrain.model.st import check_folder

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
GRAPH = "onnx/model.onnx"
FACTS = "onnx/parity.json"
INPUTS = ("input_ids", "attention_mask")
POOL_MASK = "pool_mask"
OUTPUTS = ("last_hidden_state", "sentence_embedding")
EXAMPLE_LENGTHS = (7, 5)


class Graph(nn.Module):
    """Backbone, pooling, Dense and normalisation in one; padding may stand on either side."""

    def __init__(self, encoder: Encoder) -> None:
        """Of the encoder's own parts."""
        super().__init__()
        self.backbone = encoder.backbone
        self.dense = encoder.dense
        self.pooling = encoder.spec.pooling
        self.normalize = encoder.spec.normalize

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pool_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (T, L, D) and vectors (T, K); `pool_mask` says which tokens count, absent all of them."""
        states_TLD = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        counted_TL = attention_mask if pool_mask is None else attention_mask * pool_mask
        weights_TL = pool_weights(attention_mask, counted_TL, self.pooling).to(states_TLD.dtype)
        share_TL = weights_TL / weights_TL.sum(dim=1, keepdim=True).clamp(min=1e-9)
        vectors_TD = torch.einsum("tld,tl->td", states_TLD, share_TL)
        vectors_TK = vectors_TD if self.dense is None else self.dense(vectors_TD)
        return states_TLD, nn.functional.normalize(vectors_TK, dim=-1) if self.normalize else vectors_TK


def pool_weights(mask_TL: Tensor, counted_TL: Tensor, pooling: str) -> Tensor:
    """How much each token counts."""
    position_TL = mask_TL.cumsum(dim=1)  # from 1
    if pooling == "mean":
        return counted_TL
    if pooling == "weighted_mean":
        return counted_TL * position_TL
    chosen_T1 = 1 if pooling == "cls" else mask_TL.sum(dim=1, keepdim=True)
    return mask_TL * (position_TL == chosen_T1)


def export_onnx(model: Path, out: Path, texts: Sequence[str] = ()) -> dict[str, Any]:
    """Write `out`: the small files of the folder `model`, and its graph where servers look for it.

    Returns the facts that stand in onnx/parity.json. Raises UserError where the graph does not give the
    vectors of sentence-transformers on real texts, given or built in, or attends otherwise than the folder.
    """
    require_packages()
    from embedtrain.model.onnx_proof import prove_graph

    if out.exists():
        raise UserError(f"{out}: it is there already; an export never overwrites a model")
    if not model.is_dir():
        raise UserError(f"{model}: no such folder; give an exported model, for example runs/NAME/model")
    check_folder(model)
    encoder = open_encoder(model).eval()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy_small_files(model, partial)
    write_graph(encoder, partial / GRAPH)
    facts = prove_graph(encoder, model, partial, texts)
    write_json(partial / FACTS, facts)
    partial.replace(out)
    return facts


def require_packages() -> None:
    """Raise UserError where the extra is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"an ONNX graph needs {', '.join(missing)}, not installed here: pip install 'embedtrain[onnx]'"
        )


def copy_small_files(model: Path, folder: Path) -> None:
    """All but the backbone's weights and graphs: config, tokenizer, modules, card."""
    shutil.copytree(
        model, folder, ignore=lambda place, names: left_behind(names) if Path(place) == model else []
    )


def left_behind(names: Sequence[str]) -> list[str]:
    """What an ONNX folder has no use for."""
    return [name for name in names if name == "onnx" or (name.startswith("model") and "safetensors" in name)]


def write_graph(encoder: Encoder, path: Path) -> None:
    """The graph in float32; weights over 2 GB stand in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = input_names(encoder)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with quiet(), silent_exporter(), torch.no_grad():
        program = torch.onnx.export(
            Graph(encoder).eval(),
            example(encoder, names),
            dynamo=True,
            input_names=names,
            output_names=list(OUTPUTS),
            dynamic_shapes={name: {0: batch, 1: length} for name in names},
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


@contextmanager
def silent_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on packages and its own deprecations; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def input_names(encoder: Encoder) -> list[str]:
    """What the graph takes; `pool_mask` only where the model leaves prompts out of its pool."""
    averaged = encoder.spec.pooling in ("mean", "weighted_mean")
    return [*INPUTS, *([POOL_MASK] if averaged and not encoder.spec.pool_instruction else [])]


def example(encoder: Encoder, names: Sequence[str]) -> tuple[Tensor, ...]:
    """A padded batch to trace with."""
    shape = len(EXAMPLE_LENGTHS), max(EXAMPLE_LENGTHS)
    ids = torch.arange(shape[0] * shape[1]).reshape(shape) % encoder.backbone.config.vocab_size
    mask = (torch.arange(shape[1]) < torch.tensor(EXAMPLE_LENGTHS)[:, None]).long()
    return ids, mask, *([mask.clone()] if POOL_MASK in names else [])
