"""What the peers share: how they are given their work, PEFT's adapters, padding, and one optimizer step.

T texts, L tokens, B rows, C documents, D dims.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel

from tools.bench.start import ALPHA, RANK, linear_layers
from tools.bench.workloads import Texts, Workload

TEMPERATURE = 0.02
LEARNING_RATE = 1e-4
MAX_NORM = 1.0


@dataclass(frozen=True)
class Given:
    """What a peer is opened with. `folder` holds the checkpoint, `scratch` takes what a library writes."""

    folder: Path
    scratch: Path
    device: str
    precision: str


class Peer(ABC):
    """A trainer: `backward` leaves the gradients of a batch, `update` clips them and takes the step.

    `collate` is what a loader does ahead in the background, so it is not timed. `model` has the adapters;
    `backbone` is what gets `input_ids`.
    """

    model: nn.Module
    backbone: nn.Module

    @abstractmethod
    def collate(self, batch: Workload) -> Any:
        """The batch as the trainer takes it, on the CPU."""

    @abstractmethod
    def backward(self, collated: Any) -> float:
        """Gradients of the batch in the adapters; its loss."""

    @abstractmethod
    def update(self) -> None:
        """Clip the gradients, change the weights, drop the gradients."""

    def set(self, **settings: int) -> None:
        """Take a setting of the grid; a peer without any takes none."""
        for name, value in settings.items():
            if not hasattr(self, name):
                raise ValueError(f"{type(self).__name__} has no setting {name!r}")
            setattr(self, name, value)

    def check_tokens(self, texts: list[str], ids: Texts) -> None:  # noqa: B027
        """Raise where the peer's own tokenizer would give other ids for the texts."""


class Stepped(Peer):
    """A PEFT model, AdamW and clipping as a bare loop has them."""

    def __init__(self, given: Given) -> None:
        base = open_base(given)
        self.device = torch.device(given.device)
        self.pad_id = padding_id(base)
        self.backbone = base
        self.model = get_peft_model(base, lora_config(base))
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        fused = True if self.device.type == "cuda" else None
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, weight_decay=0.0, fused=fused)

    def update(self) -> None:
        """Clip, step, drop the gradients."""
        nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def collate(self, batch: Workload) -> Any:
        """Queries and documents, each padded to the longest of them."""
        return pad(batch.queries, self.pad_id), pad(batch.documents, self.pad_id)

    def moved(self, padded: dict[str, Tensor]) -> dict[str, Tensor]:
        """On the model's device."""
        return {name: x.to(self.device) for name, x in padded.items()}


def open_base(given: Given) -> Any:
    """The checkpoint with sdpa attention, bidirectional as its config says."""
    dtype = getattr(torch, given.precision)
    model = AutoModel.from_pretrained(given.folder, dtype=dtype, attn_implementation="sdpa")
    return model.to(given.device)


def padding_id(model: Any) -> int:
    """The token that pads."""
    return int(model.config.pad_token_id or 0)


def lora_config(base: nn.Module) -> LoraConfig:
    """PEFT's defaults on all linear layers."""
    targets = sorted({name.rpartition(".")[2] for name, _ in linear_layers(base)})
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, task_type="FEATURE_EXTRACTION")


def pad(texts: Texts, pad_id: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (T, L), padded on the right to the longest."""
    lengths_T = torch.tensor([len(text) for text in texts])
    mask_TL = torch.arange(int(lengths_T.max())) < lengths_T[:, None]
    ids_TL = torch.full(mask_TL.shape, pad_id)
    ids_TL[mask_TL] = torch.tensor([token for text in texts for token in text])
    return {"input_ids": ids_TL, "attention_mask": mask_TL.long()}


def mean_pool(states_TLD: Tensor, mask_TL: Tensor) -> Tensor:
    """Unit vectors (T, D) of the mean state of the real tokens."""
    kept_TLD = states_TLD.float() * mask_TL[:, :, None]
    return F.normalize(kept_TLD.sum(dim=1) / mask_TL.sum(dim=1, keepdim=True), dim=1)


def infonce(queries_BD: Tensor, documents_CD: Tensor) -> Tensor:
    """Mean InfoNCE; the documents stand row by row, a row's positive first."""
    group = len(documents_CD) // len(queries_BD)
    target_B = torch.arange(len(queries_BD), device=queries_BD.device) * group
    return F.cross_entropy(queries_BD @ documents_CD.T / TEMPERATURE, target_B)
