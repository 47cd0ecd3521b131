"""sentence-transformers: its trainer with the plain or the cached MultipleNegativesRankingLoss.

Its collator pads each column to the column's longest, as it would. Only the function that it calls to
tokenise a column is replaced, by one that pads the ids it is given. A step is the trainer's own
`training_step`, clipping and optimizer; start-up and the model card's examples stay outside.
"""

from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import Tensor

from tools.bench.peers.parts import (
    LEARNING_RATE,
    MAX_NORM,
    TEMPERATURE,
    Given,
    Peer,
    lora_config,
    pad,
    padding_id,
)
from tools.bench.workloads import Texts, Workload

SILENT = {
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "eval_strategy": "no",
    "disable_tqdm": True,
}


class Trained(Peer):
    """A SentenceTransformer in its trainer; `mini_batch_size` counts for the cached loss alone."""

    def __init__(self, given: Given, cached: bool) -> None:
        self.st = open_model(given)
        self.backbone = self.st[0].model
        self.pad_id = padding_id(self.backbone)
        self.st.add_adapter(lora_config(self.backbone))
        self.model = self.st
        scale = 1 / TEMPERATURE
        self.loss: Any = (
            CachedMultipleNegativesRankingLoss(self.st, scale=scale)
            if cached
            else MultipleNegativesRankingLoss(self.st, scale=scale)
        )
        self.trainer = SentenceTransformerTrainer(
            model=self.st,
            args=training_arguments(given),
            train_dataset=Dataset.from_dict({"query": ["a"], "positive": ["b"]}),
            loss=self.loss,
            data_collator=SentenceTransformerDataCollator(preprocess_fn=self.preprocess),
        )
        self.prepare()

    def prepare(self) -> None:
        """What `train` does before its first step."""
        trainer = self.trainer
        trainer.create_optimizer_and_scheduler(num_training_steps=1_000_000)
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(
            trainer.model, trainer.optimizer
        )
        trainer.current_gradient_accumulation_steps = 1

    def preprocess(self, inputs: Texts, **_: object) -> dict[str, Tensor]:
        """In place of the tokenizer: a column's ids padded to the longest."""
        return pad(inputs, self.pad_id)

    def set(self, **settings: int) -> None:
        """The cached loss's mini-batch."""
        for name, value in settings.items():
            setattr(self.loss, name, value)

    def collate(self, batch: Workload) -> Any:
        """Its collator on rows of columns."""
        names = ["query", "positive", *(f"negative_{n}" for n in range(1, len(batch.columns) - 1))]
        rows = [dict(zip(names, texts, strict=True)) for texts in zip(*batch.columns, strict=True)]
        return self.trainer.data_collator(rows)

    def backward(self, collated: Any) -> float:
        """The trainer's own step."""
        return float(self.trainer.training_step(self.trainer.model_wrapped, collated, None))

    def update(self) -> None:
        """As the trainer's loop ends a step."""
        trainer = self.trainer
        trainer.accelerator.clip_grad_norm_(self.st.parameters(), MAX_NORM)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        self.st.zero_grad()

    def check_tokens(self, texts: list[str], ids: Texts) -> None:
        """Its tokenizer must give our ids; it would write a chat template around every text."""
        found = self.st.preprocess(texts)
        kept = [
            row[mask.bool()].tolist()
            for row, mask in zip(*map(found.get, ("input_ids", "attention_mask")), strict=True)
        ]
        if kept != ids:
            raise ValueError("sentence-transformers gives other token ids than embedtrain for the same texts")


def open_model(given: Given) -> SentenceTransformer:
    """The checkpoint with mean pooling and unit length."""
    settings = {"dtype": getattr(torch, given.precision), "attn_implementation": "sdpa"}
    body = Transformer(str(given.folder), model_kwargs=settings)
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[body, pooling, Normalize()], device=given.device)


def training_arguments(given: Given) -> SentenceTransformerTrainingArguments:
    """Its defaults but for what all peers have alike, and no reports."""
    on_gpu = given.device == "cuda"
    return SentenceTransformerTrainingArguments(
        output_dir=str(given.scratch),
        use_cpu=not on_gpu,
        bf16=on_gpu,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=MAX_NORM,
        max_steps=1_000_000,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        **SILENT,
    )


def open_plain(given: Given) -> Trained:
    """One pass."""
    return Trained(given, cached=False)


def open_cached(given: Given) -> Trained:
    """With the gradient cache."""
    return Trained(given, cached=True)
