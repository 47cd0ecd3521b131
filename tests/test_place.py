"""What is said and done where an encoder is made ready to train."""

import pytest
import torch
from packing import folder_of, load_tiny

from embedtrain.config.schema import Machine
from embedtrain.model.lora import tune_all
from embedtrain.train.place import place_encoder

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", ["packed", "sdpa"])
def test_padding_that_nobody_asked_for_is_told(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = load_tiny(folder_of("llama"), attention_kernel=kernel)
    tune_all(encoder)
    capsys.readouterr()
    assert place_encoder(encoder, CPU, Machine())
    assert capsys.readouterr().err == ""
    encoder.backbone.set_attn_implementation("eager")
    place_encoder(encoder, CPU, Machine())
    said = "texts are padded, not packed: its attention is transformers' own 'eager'\n"
    assert capsys.readouterr().err == (said if kernel == "packed" else "")


def test_checkpointing_asks_for_no_gradient_of_the_input() -> None:
    """The embeddings are frozen under adapters: nothing below the first of them needs a gradient."""
    encoder = load_tiny(folder_of("llama"))
    encoder.requires_grad_(False)
    encoder.backbone.layers[1].requires_grad_(True)
    place_encoder(encoder, CPU, Machine(activation_checkpointing=True))
    seen: list[bool] = []
    encoder.backbone.layers[0].register_forward_pre_hook(
        lambda layer, args: seen.append(args[0].requires_grad)
    )
    encoder.encode(["a text"])
    encoder.train()
    batch = encoder.tokenize(encoder.format(["a text"], "query"), 16)
    encoder(batch).sum().backward()
    assert seen
    assert not any(seen)
    assert all(p.grad is not None for p in encoder.backbone.layers[1].parameters())
