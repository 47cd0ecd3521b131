"""The encoder: a backbone, its tokenizer, and how token states become one vector.

Dimensions: T texts, P tokens of all texts, D dims.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.artifacts import hash_json
from embedtrain.batch import TokenBatch
from embedtrain.config.schema import TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.packed import copied, groups_of, packed_states, padded_states, why_padded
from embedtrain.model.pooling import pool
from embedtrain.model.tokens import batches, tokenize
from embedtrain.show.progress import Bar
from embedtrain.show.progress import progress as show_progress
from embedtrain.text import Formatted, format_document, format_query, source_text

Side = Literal["query", "document"]
CPU_TOKENS = 512  # in a batch and a thread: what a layer writes stays in the core's cache


@dataclass(frozen=True)
class EncoderSpec:
    """All that turns a backbone's states into vectors, and where the backbone came from."""

    base: str
    attention: str = "bidirectional"
    pooling: str = "mean"
    pool_instruction: bool = True
    append_eos: bool = False
    normalize: bool = True
    base_revision: str | None = None
    base_sha256: str | None = None
    keep_first_layers: int | None = None
    precision: str = "float32"
    attention_kernel: str = "packed"
    trust_remote_code: bool = False
    text: TextFormat = field(default_factory=TextFormat)
    prompts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for encoder.json."""
        return asdict(self) | {"text": self.text.model_dump()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "EncoderSpec":
        """The spec that `to_json` wrote."""
        return cls(**(values | {"text": TextFormat.model_validate(values["text"])}))

    def describe(self) -> str:
        """One line for a person."""
        prompts = ", ".join(f"{name} {text!r}" for name, text in self.prompts.items() if text) or "none"
        return f"{self.base}: {self.attention} attention, {self.pooling} pooling, prompts: {prompts}"


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, whatever their order; tensors are hashed side by side."""
    with ThreadPoolExecutor() as pool:
        return hash_json(
            sorted(pool.map(lambda pair: tensor_digest(pair[0], [pair[1]], pair[1].shape), tensors))
        )


def tensor_digest(name: str, blocks: Iterable[Tensor], shape: Sequence[int]) -> list[str]:
    """Name, dtype, shape and SHA-256 of a tensor that comes in blocks of rows, at least one."""
    digest, dtype = hashlib.sha256(), ""
    for block in blocks:
        flat = block.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
        dtype = str(block.dtype)
    return [name, dtype, str(tuple(shape)), digest.hexdigest()]


def weights_hash(encoder: "Encoder") -> str:
    """Hash of all weights and of how they become a vector; remembered until a weight changes."""
    weights = list(encoder.weights())
    state = tuple((p.data_ptr(), p.dtype, p._version) for _, p in weights)
    known, digest = encoder._known_hash
    if known != state:
        spec = encoder.spec
        way = [spec.attention, spec.pooling, spec.pool_instruction, spec.append_eos, spec.precision]
        digest = hash_json([way, hash_tensors(weights)])
        encoder._known_hash = (state, digest)
    return digest


def bars(total: int, shown: bool) -> AbstractContextManager[Bar | None]:
    """A progress bar over texts, or nothing."""
    return show_progress("encode", total=total, unit="text") if shown else nullcontext()


class Encoder(nn.Module):
    """Texts to vectors: the value that every stage trains, mines with, averages and exports."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: Tokenizer,
        spec: EncoderSpec,
        dense: nn.Module | None = None,
    ) -> None:
        """Put the parts together; `embedtrain.model.load` makes them."""
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.spec = spec
        self.dense = dense
        self.learned = nn.ParameterDict()  # numbers of the objective; no vector depends on them
        self.lora: Lora | None = None  # the shape of the adapters on the backbone
        self.folded = False  # whether the weights below the adapters are no longer the base's
        self.base_hash: str | None = None  # of the base's weights, where it no longer holds them as loaded
        self.architecture = type(backbone).__name__
        self.sharded = False  # whether each process holds a part of the weights, so that all run together
        self.take_turns: Callable[[Iterable[Any]], Iterator[Any]] = iter  # gives None while others have more
        self.pad_id = backbone.config.pad_token_id or 0
        self._known_hash: tuple[object, str] = (None, "")

    @classmethod
    def open(cls, path: str | Path, *, device: str = "cpu") -> "Encoder":
        """The encoder in a folder: an export, a checkpoint, an adapter, a sentence-transformers model."""
        from embedtrain.model.load import open_encoder

        return open_encoder(path, device=device)

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        linears = [m for m in self.dense.modules() if isinstance(m, nn.Linear)] if self.dense else []
        return linears[-1].out_features if linears else self.backbone.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.get_input_embeddings().weight.device

    @property
    def padded(self) -> str | None:
        """Why texts are padded to one length, None where they are packed end to end."""
        dtype = torch.bfloat16 if self.spec.precision == "bfloat16" else self.backbone.dtype
        return why_padded(self.backbone, dtype, self.device.type, self.training)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Raw pooled vectors (T, D), not normalised: float32, or float64 where the weights are."""
        groups = groups_of(batch)
        with self.mixed_precision():
            if batch.num_tokens:
                states_PD = self.states(batch, groups)
            else:  # where weights are sharded, all processes run the layers
                one = TokenBatch.of([[self.pad_id]])
                states_PD = self.states(one, groups_of(one))[:0]
        first_T = copied(batch.first_T, self.device) if bool(batch.first_T.any()) else None
        vectors_TD = pool(states_PD, groups, first_T, self.spec.pooling)
        return vectors_TD if self.dense is None else self.dense(vectors_TD)

    def states(self, batch: TokenBatch, groups: tuple[tuple[int, int], ...]) -> Tensor:
        """Last states (P, D) of all tokens, each text seen alone."""
        if self.padded is None:
            return packed_states(self.backbone, batch, groups, self.device)
        return padded_states(self.backbone, batch, self.pad_id, self.device)

    def mixed_precision(self) -> torch.autocast:
        """bfloat16 products over float32 weights, where all weights train; else nothing to do."""
        mixed = self.spec.precision == "bfloat16" and self.backbone.dtype == torch.float32
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that vectors depend on."""
        return ((name, p) for name, p in self.named_parameters() if not name.startswith("learned."))

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that training changes."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def checkpoint_activations(self) -> None:
        """Keep only the layers' inputs in memory and compute the rest again in the backward pass."""
        older = "gradient_checkpointing_enable"  # the name before transformers 5.23
        newer = "activation_checkpointing_enable"
        enable = getattr(self.backbone, newer if hasattr(self.backbone, newer) else older)
        enable({"use_reentrant": False})
        self.backbone.disable_input_require_grads()  # transformers asks for a gradient that nobody needs

    def with_templates(self, query: str, document: str) -> "Encoder":
        """The same weights under other templates: what is encoded is a source's own writing."""
        text = self.spec.text.model_copy(update={"query": query, "document": document})
        other = Encoder(self.backbone, self.tokenizer, replace(self.spec, text=text), self.dense)
        return other.train(self.training)

    def format(self, texts: Sequence[str], side: Side, instruction: str = "") -> list[Formatted]:
        """The exact strings the model sees."""
        how = source_text(self.spec.text)
        if side == "query":
            return [format_query(how, text, instruction) for text in texts]
        return [format_document(how, text, 0, instruction) for text in texts]

    def tokenize(self, formatted: Sequence[Formatted], max_tokens: int) -> TokenBatch:
        """Tokens of formatted texts, on the CPU."""
        return tokenize(self.tokenizer, formatted, max_tokens, self.spec.pool_instruction)

    def encode(
        self,
        texts: Sequence[str],
        side: Side = "query",
        *,
        instruction: str = "",
        max_tokens: int | None = None,
        tokens_per_batch: int = 16384,
        normalize: bool = True,
        progress: bool = False,
    ) -> np.ndarray:
        """float32 vectors (T, D) in the order of `texts`; batches are cut by length, longest first."""
        limits = {"query": self.spec.text.max_query_tokens, "document": self.spec.text.max_document_tokens}
        return self.encode_formatted(
            self.format(texts, side, instruction),
            max_tokens or limits[side],
            tokens_per_batch=tokens_per_batch,
            normalize=normalize,
            progress=progress,
        )

    def encode_formatted(
        self,
        formatted: Sequence[Formatted],
        max_tokens: int,
        *,
        tokens_per_batch: int = 16384,
        normalize: bool = True,
        progress: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same for texts that were formatted already, into `out` where it is given, a memory map say.

        On a CPU batches are as small as its caches.
        """
        if self.device.type == "cpu":
            tokens_per_batch = min(tokens_per_batch, CPU_TOKENS * torch.get_num_threads())
        vectors_TD = np.empty((len(formatted), self.dim), dtype=np.float32) if out is None else out
        was_training = self.training
        self.eval()
        cut = batches(
            self.tokenizer,
            formatted,
            max_tokens,
            self.spec.pool_instruction,
            tokens_per_batch,
            padded=self.padded is not None,
        )
        # gathered weights that were made in inference mode could not train later
        quick = torch.no_grad() if self.sharded else torch.inference_mode()
        with quick, bars(len(formatted), progress) as bar:
            for turn in self.take_turns(cut):
                if turn is None:
                    self(TokenBatch.of([]))
                    continue
                places, batch = turn
                raw_TD = self(batch)
                ready_TD = nn.functional.normalize(raw_TD, dim=1) if normalize else raw_TD
                vectors_TD[places] = ready_TD.float().cpu().numpy()
                if bar is not None:
                    bar.advance(len(places))
        self.train(was_training)
        return vectors_TD
