"""Tiny random models of every family, in real folders, with a real small tokenizer."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
ENCODERS = ("bert", "xlm-roberta", "modernbert")
WINDOW = 8
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
TEXTS = (
    "How do I list the files in a folder?",
    "The ls command lists files and folders, one line each with -l.",
    "Copy a file to another place: cp source target keeps the original.",
    "Déjà vu: Übergröße, naïve café, 日本語 text, and some numbers like 3.14159 or 2,718.",
    "A decoder becomes an encoder when every token may look at all the others.",
    "Remove a folder and everything below it with care, for there is no way back.",
)
COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
OF_DECODERS = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 2}
OF_ENCODERS = {"max_position_embeddings": 130, "pad_token_id": 1, "hidden_dropout_prob": 0.0}
OF_FAMILY: dict[str, dict[str, object]] = {
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "gemma3_text": {"sliding_window": WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "xlm-roberta": {"type_vocab_size": 1},
    "modernbert": {
        "cls_token_id": 0,
        "sep_token_id": 2,
        "global_attn_every_n_layers": 2,
        "local_attention": 2 * WINDOW,
        "initializer_cutoff_factor": 3.0,
    },
}


def save_tiny(family: str, folder: Path, *, seed: int = 0, head: bool = False, **changes: object) -> Path:
    """A tiny random model of `family` with its tokenizer; `head` adds a decoder's language-model head."""
    decoder = family in DECODERS
    settings = COMMON | (OF_DECODERS if decoder else OF_ENCODERS) | OF_FAMILY.get(family, {})
    tokenizer = tiny_tokenizer(decoder)
    settings |= {"vocab_size": tokenizer.get_vocab_size()} | changes
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **settings)
    model = (AutoModelForCausalLM if head else AutoModel).from_config(config)
    model.save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>" if decoder else "<pad>",
        model_max_length=settings["max_position_embeddings"] - (0 if decoder else 2),
        chat_template="{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}",
    )
    wrapped.save_pretrained(folder)
    return folder


@cache
def trained_tokenizer() -> str:
    """A byte-level BPE trained on the texts above, as JSON."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer.to_str()


def tiny_tokenizer(decoder: bool) -> Tokenizer:
    """As SmolLM2's, a decoder's adds no special tokens; an encoder's stands between `<s>` and `</s>`."""
    tokenizer = Tokenizer.from_str(trained_tokenizer())
    if not decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return tokenizer
