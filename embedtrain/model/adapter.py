"""A PEFT adapter folder folded into its base."""

from pathlib import Path

import peft
from peft import PeftConfig
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.existing import ADAPTER

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the model that an adapter was trained on."""
    config = read_json(folder / ADAPTER)
    name = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA" or not name:
        raise UserError(
            f"{folder / ADAPTER}: expected a LoRA adapter that names its base_model_name_or_path; "
            f"found peft_type {config.get('peft_type')!r}, base {name!r}"
        )
    return name, config.get("revision")


def check_adapter(folder: Path) -> None:
    """Raise UserError where peft would import a module that the adapter names."""
    if read_json(folder / ADAPTER).get("megatron_config"):
        raise UserError(
            f"{folder / ADAPTER}: megatron_config has code imported by name, which is never done; "
            "expected a plain LoRA adapter"
        )


def lora_config(folder: Path) -> PeftConfig:
    """How an adapter changes its base, as peft reads it."""
    check_adapter(folder)
    return PeftConfig.from_pretrained(str(folder), inference_mode=True)


def fold_adapter(backbone: PreTrainedModel, folder: Path, origin: str) -> PreTrainedModel:
    """The backbone with the adapter's product added to its weights."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{origin}: no {WEIGHTS} beside {ADAPTER} (pickles are not read)")
    # An adapter trained under a language-model head has one more `model.` in its names.
    stored = {
        name.removeprefix(PREFIX).removeprefix("model."): value for name, value in load_file(path).items()
    }
    tuner = LoraModel(backbone, lora_config(folder), "default")
    wanted = set(peft.get_peft_model_state_dict(tuner.model))
    if wanted != set(stored):
        odd = sorted(wanted ^ set(stored))
        raise UserError(
            f"{origin}: the adapter does not fit its base: {len(odd)} names differ, first {odd[0]}"
        )
    peft.set_peft_model_state_dict(tuner.model, stored)
    plain: PreTrainedModel = tuner.merge_and_unload()
    return plain
