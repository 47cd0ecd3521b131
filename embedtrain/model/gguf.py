"""A GGUF file into a plain folder of float32 safetensors."""

import sys
from pathlib import Path

from embedtrain.config.errors import UserError

CHAT_FILES = ("chat_template.jinja", "chat_template.json")


def convert_gguf(path: Path, folder: Path) -> None:
    """Dequantise `path` and write config.json, model.safetensors and the tokenizer's files to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    print(f"{path.name}: converting to safetensors, once (about half a minute)", file=sys.stderr, flush=True)
    logging.disable_progress_bar()
    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except (ValueError, NotImplementedError, OSError) as error:
        raise UserError(f"{path.name}: transformers cannot read this GGUF file: {error}") from None
    # transformers refuses to save a model that came from GGUF: a plain one takes its weights.
    config = type(loaded.config).from_dict(loaded.config.to_dict())
    with torch.device("meta"):
        plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    for name in CHAT_FILES:
        (folder / name).unlink(missing_ok=True)
