"""Proves an ONNX graph by running it: the vectors of sentence-transformers, and attention as it is claimed.

Dimensions: T texts, L tokens of the longest, D dims.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder
from embedtrain.model.onnx import GRAPH, OUTPUTS, POOL_MASK
from embedtrain.model.parity import PARITY_BOUNDS, UNUSUAL, cosine_distances, shorten
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer

FLOAT32_BOUND = 1e-5
TEXTS = (
    "How do I list the files in a folder?",
    "ls lists the files and folders of a folder, one a line with -1.",
    "Two sentences that mean the same should have vectors that lie close together.",
    "Die Übergröße kostet 3,50 €; naïve readers may skip the café.",
    "def mean(values): return sum(values) / len(values)",
    "In 1969 two people walked on the moon, and a third waited above.",
)
BATCH_TOKENS = 8192
ROWS = 8
SHORT = 12
LONGEST = 2048  # tokens of a probe, so that its memory stays small
TRIES = 3


class Runner:
    """A graph in onnxruntime, and the folder's tokenizer: all that a client needs."""

    def __init__(self, folder: Path) -> None:
        """Open the graph on the CPU."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
        self.names = [entry.name for entry in self.session.get_inputs()]
        self.limit = int(read_json(folder / "sentence_bert_config.json")["max_seq_length"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.limit)
        self.tokenizer.no_padding()
        self.pad_id = read_json(folder / "config.json").get("pad_token_id") or 0

    def run(self, rows: Sequence[Sequence[int]], skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """States and vectors of rows of token ids, padded on the right; the first `skip` are not pooled."""
        width = max(map(len, rows))
        ids_TL = np.array([[*row, *[self.pad_id] * (width - len(row))] for row in rows], dtype=np.int64)
        mask_TL = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
        pooled_TL = np.where(np.arange(width) < skip, 0, mask_TL)
        feed = dict(zip(self.names, (ids_TL, mask_TL, pooled_TL), strict=False))
        states, vectors = self.session.run(list(OUTPUTS), feed)
        return np.asarray(states), np.asarray(vectors)

    def vectors(self, rows: Sequence[Sequence[int]], skip: int = 0) -> np.ndarray:
        """Vectors of many rows, in batches of rows of different lengths."""
        size = max(1, min(ROWS, BATCH_TOKENS // max(map(len, rows))))
        return np.concatenate([self.run(rows[i : i + size], skip)[1] for i in range(0, len(rows), size)])

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, cut at the limit, with the tokens that the post-processor adds."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, without the one that ends a text."""
        encoding = self.tokenizer.encode(prompt)
        return len(encoding.ids) - bool(encoding.special_tokens_mask[-1:] == [1]) if prompt else 0


def prove_graph(encoder: Encoder, model: Path, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Run the graph in `folder` beside sentence-transformers on `model`; the facts for parity.json.

    Raises UserError where vectors differ by more than the bound, or attention is not as config.json says.
    """
    runner = Runner(folder)
    attention = probe_attention(runner)
    if attention != encoder.spec.attention:
        raise UserError(
            f"{model}: the graph's attention is {attention}, the folder's {encoder.spec.attention}; "
            "nothing is written"
        )
    theirs = open_sentence_transformer(model)
    precision = read_json(model / "config.json")["dtype"]
    bound = max(PARITY_BOUNDS[precision], FLOAT32_BOUND)
    compared = compare_prompts(runner, theirs, [*(texts or TEXTS), *UNUSUAL])
    compared["every length"] = compare_lengths(runner, theirs, texts or TEXTS)
    for name, facts in compared.items():
        if not facts["max_cosine_distance"] <= bound:
            raise UserError(
                f"{model}: the graph gives other vectors than sentence-transformers: cosine distance "
                f"{facts['max_cosine_distance']:.3g} is above {bound:g} ({name}; worst: {facts['worst']}); "
                "nothing is written"
            )
    return {
        "attention": attention,
        "bound": bound,
        "max_cosine_distance": max(facts["max_cosine_distance"] for facts in compared.values()),
        "compared": compared,
        "inputs": runner.names,
        "outputs": list(OUTPUTS),
        "max_tokens": runner.limit,
        "versions": {
            name: version(name)
            for name in ("torch", "onnx", "onnxscript", "onnxruntime", "sentence-transformers")
        },
    }


def compare_prompts(
    runner: Runner, theirs: SentenceEmbedder, texts: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Whole texts, one beyond the limit among them, under each prompt of the folder, padded in batches."""
    long = " ".join(text for text in texts if text.strip())
    compared = {}
    for name, prompt in theirs.model.prompts.items():
        whole = [*texts, " ".join([long] * (1 + runner.limit // 16))]
        rows = runner.rows([(prompt or "") + text for text in whole])
        skip = runner.prompt_tokens(prompt or "") if POOL_MASK in runner.names else 0
        kept = [i for i, row in enumerate(rows) if len(row) > skip]
        found_TD = runner.vectors([rows[i] for i in kept], skip)
        chosen = [whole[i] for i in kept]
        expected = theirs.model.encode(
            chosen, prompt_name=name, convert_to_tensor=True, show_progress_bar=False
        )
        compared[f"prompt '{name}'"] = facts_of(chosen, found_TD, expected.float().cpu().numpy())
    return compared


def compare_lengths(runner: Runner, theirs: SentenceEmbedder, texts: Sequence[str]) -> dict[str, Any]:
    """Rows of every short length and of some up to the limit; sentence-transformers gets each alone."""
    ids = [token for row in runner.rows(texts) for token in row]
    limit = min(runner.limit, LONGEST)
    ids *= 1 + limit // len(ids)
    lengths = sorted({*range(1, min(17, limit + 1)), *np.linspace(1, limit, 9, dtype=int).tolist()})
    rows = [ids[:length] for length in reversed(lengths)]
    expected = []
    for row in rows:
        features = {
            "input_ids": torch.tensor([row]),
            "attention_mask": torch.ones(1, len(row), dtype=torch.int64),
        }
        with torch.inference_mode():
            expected.append(theirs.model(features)["sentence_embedding"][0].float().numpy())
    names = [f"{len(row)} tokens" for row in rows]
    return facts_of(names, runner.vectors(rows), np.stack(expected))


def facts_of(texts: Sequence[str], found_TD: np.ndarray, expected_TD: np.ndarray) -> dict[str, Any]:
    """Distances of one comparison."""
    distances = np.nan_to_num(cosine_distances(found_TD, expected_TD), nan=np.inf)
    return {
        "num_texts": len(texts),
        "max_cosine_distance": float(distances.max()),
        "max_difference": float(np.abs(found_TD - expected_TD).max()),
        "worst": shorten(texts[int(distances.argmax())]),
    }


def probe_attention(runner: Runner) -> str:
    """`bidirectional` or `causal`, found by running the graph and changing tokens.

    In a causal graph the first token's state is a function of the first token alone: however the last one
    changes, it stays the same to the bit, because what is masked adds exactly zero to its sums. So one
    changed bit proves that the last token is seen, once the same input has given the same bits twice. Texts
    without padding, with padding, and as long as the limit must agree: a model that is bidirectional only
    without padding, as a wrong switch makes it, is refused.
    """
    found = {name: sees_last(runner, length, padding) for name, length, padding in probe_shapes(runner.limit)}
    if len(set(found.values())) > 1:
        seen, unseen = (", ".join(n for n, sees in found.items() if sees is way) for way in (True, False))
        raise UserError(f"the graph's first token sees the last of a text {seen}, and not {unseen}")
    return "bidirectional" if all(found.values()) else "causal"


def probe_shapes(limit: int) -> list[tuple[str, int, int]]:
    """Name, tokens and tokens of padding of each probe."""
    short, long = min(SHORT, limit), min(limit, LONGEST)
    return [
        ("without padding", short, 0),
        ("beside a longer text", short, 5),
        (f"of {long} tokens", long, 0),
    ]


def sees_last(runner: Runner, length: int, padding: int) -> bool:
    """Whether a change of the last token changes the first token's state in any bit."""
    vocabulary = runner.tokenizer.get_vocab_size()
    draw = np.random.default_rng(0).integers(vocabulary // 2, vocabulary, length + padding + TRIES).tolist()
    row, neighbour = draw[:length], draw[: length + padding]

    def states(changed: list[int]) -> np.ndarray:
        rows = [changed, neighbour] if padding else [changed]
        return runner.run(rows)[0][0, :length]

    before = states(row)
    if not np.array_equal(before, states(row)):
        raise UserError("onnxruntime gives other states for the same text: its attention cannot be told")
    if np.array_equal(before[-1], states([draw[-1], *row[1:]])[-1]):
        raise UserError("the graph's last token does not see the first one: it attends to nothing")
    return any(not np.array_equal(before[0], states([*row[:-1], token])[0]) for token in draw[-TRIES:])
