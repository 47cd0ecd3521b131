"""A training run by the loop of every run, and encoding, on random weights: what tools/gpu_check.py measures.

The weights are drawn, the tokenizer is made from the rows: nothing is fetched.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora
from embedtrain.train.log import read_curve
from embedtrain.train.loop import train

WARM_STEPS = 5
END = "<|end|>"


@dataclass(frozen=True)
class Size:
    """How much is done."""

    device: str
    precision: str
    matmul: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    batch_size: int
    steps: int
    chunk_tokens: int
    lr: float
    num_encoded: int


FULL = Size("cuda", "bfloat16", 8192, 32_000, 2048, 16, 16, 1024, 40, 32_768, 2e-4, 20_000)
REHEARSAL = Size("cpu", "float32", 256, 600, 32, 2, 4, 16, 30, 512, 5e-3, 64)


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(call: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of a call after three to warm up, the device waited for."""
    seconds = []
    for number in range(3 + repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_ceiling(size: Size) -> float:
    """TFLOP/s of a square product in the run's precision, on random data."""
    dtype = getattr(torch, size.precision)
    one, other = (torch.randn(size.matmul, size.matmul, device=size.device, dtype=dtype) for _ in range(2))
    seconds = median_seconds(lambda: one @ other, size.device)
    return 2 * size.matmul**3 / seconds / 1e12


def measure(size: Size, rows: list[Row], path: str, folder: Path) -> dict[str, float]:
    """The ceiling, the training run and encoding, in this process."""
    figures = {"ceiling_tflops": measure_ceiling(size)}
    run = make_run(size, path, str(make_base(size, rows, folder / "base")))
    encoder = load_encoder(run.base, run.encoder, run.text, precision=run.precision, device=size.device)
    return (
        figures | measure_training(encoder, rows, run, size, folder) | measure_encoding(encoder, rows, size)
    )


def make_base(size: Size, rows: list[Row], folder: Path) -> Path:
    """A random Llama decoder, and a tokenizer made from the rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for row in rows for text in (row.query, *row.positives)), trainer)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.LlamaModel(config).to(torch.bfloat16).save_pretrained(folder)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.save_pretrained(folder)
    return folder


def make_run(size: Size, rows: str, base: str) -> Run:
    """A run of one train stage."""
    stage = {
        "name": "lora",
        "kind": "train",
        "lora": {"rank": 16, "alpha": 32},
        "objective": {"terms": [{"kind": "infonce", "temperature": 0.05}]},
        "batch_size": size.batch_size,
        "steps": size.steps,
        "lr": size.lr,
        "save_every_steps": size.steps,
    }
    values = {"name": "gpu_check", "precision": size.precision, "base": {"model": base}, "stages": [stage]}
    return Run.model_validate(values | {"sources": {"rows": {"rows": rows}}})


def measure_training(
    encoder: Encoder, rows: list[Row], run: Run, size: Size, folder: Path
) -> dict[str, float]:
    """Loss at both ends, tokens a second after the first steps, peak memory, and the rate of arithmetic."""
    stage = run.stages[0]
    assert isinstance(stage, Train)
    add_lora(encoder, stage.lora, run.seed)
    machine = Machine.model_validate({"device": size.device, "chunk_tokens": size.chunk_tokens})
    if size.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    facts = train(encoder, {"rows": rows}, stage, run, machine, folder / "train")
    steps = read_curve(folder / "train" / "curve.jsonl")[WARM_STEPS:]
    seconds, tokens, kept = (sum(float(s[n]) for s in steps) for n in ("seconds", "tokens", "kept_tokens"))
    weights = sum(p.numel() for p in encoder.backbone.layers.parameters())
    # forward, and the gradient by the activations, for frozen weights need none: 4 a weight and token;
    # 2 more where a text is encoded twice
    useful = 4 * weights * tokens / seconds / 1e12
    peak = torch.cuda.max_memory_allocated() / 2**30 if size.device == "cuda" else 0.0
    return {
        "first_loss": float(str(facts["first_loss"])),
        "last_loss": float(str(facts["last_loss"])),
        "train_tokens_per_second": tokens / seconds,
        "train_kept_fraction": kept / tokens,
        "train_useful_tflops": useful,
        "train_hardware_tflops": useful + 2 * weights * (tokens - kept) / seconds / 1e12,
        "train_feed_seconds": sum(float(s["feed_seconds"]) for s in steps),
        "train_peak_gib": peak,
        "layer_weights": weights,
    }


def measure_encoding(encoder: Encoder, rows: list[Row], size: Size) -> dict[str, float]:
    """Tokens a second through `encode`, tokenising included."""
    texts = [row.positives[0] for row in rows[: size.num_encoded]]
    limit = encoder.spec.text.max_document_tokens
    tokens = encoder.tokenize(encoder.format(texts, "document"), limit).num_tokens
    encoder.encode(texts[:256], "document")
    start = time.perf_counter()
    encoder.encode(texts, "document", tokens_per_batch=4 * size.chunk_tokens)
    return {"encode_tokens_per_second": tokens / (time.perf_counter() - start)}
