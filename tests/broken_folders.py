"""Folders broken on purpose, each with the servers and rules that must say so."""

from collections.abc import Callable
from pathlib import Path

from exports import change_json
from safetensors.torch import load_file, save_file

from embedtrain.serving.answers import Outcome


def config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change of config.json."""
    return lambda folder: change_json(folder / "config.json", change)


def in_file(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change of another JSON file."""
    return lambda folder: change_json(folder / name, change)


def rename_tensors(rename: Callable[[str], str]) -> Callable[[Path], None]:
    """Other names of the weights."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({rename(name): value for name, value in weights.items()}, folder / "model.safetensors")

    return change


def lose_end_token(folder: Path) -> None:
    """The end token stands in tokenizer_config.json alone."""
    change_json(folder / "tokenizer_config.json", lambda c: c.update(add_eos_token=True))
    change_json(folder / "tokenizer.json", lambda t: t.update(post_processor=None))


def add_chat_template(folder: Path) -> None:
    """As sentence-transformers 6 saves a tokenizer with a template."""
    change_json(folder / "tokenizer_config.json", lambda c: c.update(chat_template="{{ messages }}"))
    message = {"method": "forward", "method_output_name": "last_hidden_state", "format": "flat"}
    change_json(
        folder / "sentence_bert_config.json", lambda c: c.update(modality_config={"message": message})
    )


def pickle_only(folder: Path) -> None:
    """The weights are a pickle's."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


Fault = tuple[str, str, Outcome, str]
BROKEN: dict[str, tuple[str, dict[str, object], Callable[[Path], None], list[Fault]]] = {
    "lost is_causal": (
        "llama",
        {},
        config(lambda c: c.pop("is_causal")),
        [
            ("sentence-transformers", "attention", Outcome.OTHER, "attention is causal, by is_causal, but "),
            ("tei", "attention", Outcome.OTHER, "bidirectional attention, by use_bidirectional_attention; "),
        ],
    ),
    "lost use_bidirectional_attention": (
        "mistral",
        {},
        config(lambda c: c.pop("use_bidirectional_attention")),
        [
            (
                "tei",
                "attention",
                Outcome.OTHER,
                "causal attention, by use_bidirectional_attention; sentence-transformers has bidirectional",
            )
        ],
    ),
    "causal Gemma": (
        "gemma3_text",
        {},
        config(lambda c: c.update(use_bidirectional_attention=False)),
        [
            (
                "tei",
                "attention",
                Outcome.OTHER,
                "bidirectional attention, by its code alone, whatever config.json says; ",
            )
        ],
    ),
    "booleans against the name": (
        "qwen3",
        {},
        in_file("1_Pooling/config.json", lambda c: c.update(pooling_mode="lasttoken")),
        [
            (
                "tei",
                "pooling",
                Outcome.OTHER,
                "the booleans say mean, sentence-transformers pools by lasttoken",
            ),
            ("vllm", "pooling", Outcome.OTHER, "pools by mean, sentence-transformers by lasttoken"),
        ],
    ),
    "weighted mean": (
        "llama",
        {"pooling": "weighted_mean"},
        lambda folder: None,
        [
            (
                "tei",
                "pooling",
                Outcome.REFUSES,
                "pooling 'weightedmean' is not among cls, mean and lasttoken",
            ),
            (
                "vllm",
                "pooling",
                Outcome.OTHER,
                "pooling 'weightedmean' is not known: the architecture's own ",
            ),
        ],
    ),
    "scaled rotary base": (
        "llama",
        {},
        config(lambda c: c.update(rope_scaling={"rope_type": "llama3", "factor": 8.0})),
        [("tei", "rotary", Outcome.REFUSES, "rope_scaling is not supported for Llama")],
    ),
    "scaling in the new place": (
        "qwen3",
        {},
        config(lambda c: c["rope_parameters"].update(rope_type="linear", factor=2.0)),
        [("tei", "rotary", Outcome.OTHER, "rope_parameters.rope_type 'linear' is not read: ")],
    ),
    "window": (
        "mistral",
        {},
        config(lambda c: c.update(sliding_window=8)),
        [("tei", "window", Outcome.OTHER, "sliding_window 8 is laid to the left alone; ")],
    ),
    "window of Qwen": (
        "qwen2",
        {},
        config(lambda c: c.update(use_sliding_window=True, sliding_window=8)),
        [("tei", "window", Outcome.REFUSES, "use_sliding_window is true, which is not supported")],
    ),
    "head size": (
        "llama",
        {},
        config(lambda c: c.update(head_dim=16)),
        [
            (
                "tei",
                "flash",
                Outcome.REFUSES,
                "num_attention_heads * head_dim is 64, and must be hidden_size, 32",
            )
        ],
    ),
    "several end tokens": (
        "qwen3",
        {},
        config(lambda c: c.update(eos_token_id=[2, 1])),
        [("tei", "config", Outcome.REFUSES, "config.json: eos_token_id is [2, 1], expected a whole number")],
    ),
    "names with a prefix": (
        "mistral",
        {},
        rename_tensors(lambda name: f"model.{name}"),
        [
            (
                "tei",
                "weights",
                Outcome.REFUSES,
                "tensors are named like 'model.embed_tokens.weight', expected ",
            )
        ],
    ),
    "names of a wrapper": (
        "llama",
        {},
        rename_tensors(lambda name: f"backbone.{name}"),
        [
            (
                "sentence-transformers",
                "weights",
                Outcome.OTHER,
                "tensors are named like 'backbone.embed_tokens",
            ),
            ("vllm", "weights", Outcome.REFUSES, "tensors are named like 'backbone.embed_tokens"),
        ],
    ),
    "adapters not merged": (
        "llama",
        {},
        rename_tensors(lambda name: name.replace("q_proj.weight", "q_proj.lora_A.weight")),
        [("sentence-transformers", "weights", Outcome.OTHER, "3 tensors are adapters' that were not merged")],
    ),
    "a layer too many": (
        "qwen3",
        {},
        config(lambda c: c.update(num_hidden_layers=4)),
        [
            (
                "sentence-transformers",
                "weights",
                Outcome.OTHER,
                "weights of 3 layers, config.json says 4: the rest",
            )
        ],
    ),
    "end token lost": (
        "qwen3",
        {"append_eos": True, "pooling": "last_token"},
        lose_end_token,
        [("tei", "tokenizer", Outcome.OTHER, "add_eos_token in tokenizer_config.json is not read, and ")],
    ),
    "no tokenizer.json": (
        "bert",
        {},
        lambda folder: (folder / "tokenizer.json").unlink(),
        [("tei", "tokenizer", Outcome.REFUSES, "no tokenizer.json; it knows fast tokenizers only")],
    ),
    "chat template": (
        "llama",
        {},
        add_chat_template,
        [
            ("tei", "chat template", Outcome.OTHER, "sentence-transformers puts every text into the chat "),
            ("vllm", "chat template", Outcome.OTHER, "sentence-transformers puts every text into the chat "),
        ],
    ),
    "no modules": (
        "llama",
        {},
        lambda folder: (folder / "modules.json").unlink(),
        [("sentence-transformers", "modules", Outcome.OTHER, "no modules.json: mean pooling is assumed")],
    ),
    "default prompt": (
        "llama",
        {},
        in_file("config_sentence_transformers.json", lambda c: c.update(default_prompt_name="query")),
        [("vllm", "prompts", Outcome.OTHER, "the default prompt 'query' is not applied")],
    ),
    "limits apart": (
        "llama",
        {},
        in_file("tokenizer_config.json", lambda c: c.update(model_max_length=200)),
        [("transformers", "limit", Outcome.OTHER, "the tokenizer cuts at 200, sentence-transformers at 20")],
    ),
}
