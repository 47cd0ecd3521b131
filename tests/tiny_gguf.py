"""A tiny random Llama as a GGUF file, quantised as real ones are."""

from pathlib import Path

import gguf
import numpy as np
from tiny_models import TEXTS, tiny_tokenizer

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS = 64, 4, 2, 96, 2


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write the file; returns each tensor as it comes out of quantisation."""
    vocabulary = tiny_tokenizer(True).get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in ("<s>", "<pad>", "</s>", "<unk>") else 1 for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges()])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    kept = {}
    for name, array in tensors(len(tokens)).items():
        kind = gguf.GGMLQuantizationType.Q8_0 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quantize(array, kind)
        kept[name] = gguf.dequantize(packed, kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def merges() -> list[list[str]]:
    """The merges of the tests' tokenizer."""
    import json

    found = json.loads(tiny_tokenizer(True).to_str())["model"]["merges"]
    assert found, f"the premise: {len(TEXTS)} texts give merges"
    return [list(pair) for pair in found]


def tensors(vocabulary: int) -> dict[str, np.ndarray]:
    """Random weights under GGUF's names."""
    random = np.random.default_rng(0)
    head = HIDDEN // HEADS
    shapes = {"token_embd": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {
            f"{block}attn_q": (HEADS * head, HIDDEN),
            f"{block}attn_k": (KV_HEADS * head, HIDDEN),
            f"{block}attn_v": (KV_HEADS * head, HIDDEN),
            f"{block}attn_output": (HIDDEN, HIDDEN),
            f"{block}ffn_gate": (INNER, HIDDEN),
            f"{block}ffn_up": (INNER, HIDDEN),
            f"{block}ffn_down": (HIDDEN, INNER),
        }
    weights = {f"{n}.weight": 0.1 * random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    norms = ["output_norm", *(f"blk.{i}.{part}_norm" for i in range(LAYERS) for part in ("attn", "ffn"))]
    return weights | {f"{name}.weight": np.ones(HIDDEN, dtype=np.float32) for name in norms}
