"""Python that loads an exported folder with transformers and torch alone, for the model card."""

from collections.abc import Mapping, Sequence

from torch import nn

from embedtrain.model.encoder import Encoder

QUERIES = ["How do I remove a package?"]
DOCUMENTS = ["apt remove NAME removes a package.", "The moon has no air."]
MASK = 'mask = batch["attention_mask"]'
COSINE = "torch.nn.functional.cosine_similarity(queries.unsqueeze(1), documents, dim=-1)"
COUNT = "mask.sum(1, keepdim=True).clamp(min=1)"
POOLINGS: dict[str, Sequence[str]] = {
    "mean": (f"vectors = (states * mask.unsqueeze(-1)).sum(1) / {COUNT}",),
    "weighted_mean": (
        "mask = mask * torch.arange(1, mask.shape[1] + 1)  # later tokens weigh more",
        f"vectors = (states * mask.unsqueeze(-1)).sum(1) / {COUNT}",
    ),
    "last_token": ("vectors = states[torch.arange(len(texts)), mask.sum(1) - 1]",),
    "cls": ("vectors = states[:, 0]",),
}


def transformers_snippet(encoder: Encoder, prompts: Mapping[str, str]) -> str:
    """A block that runs as it stands, once MODEL is the folder or id of the exported model.

    Its vectors are those of sentence-transformers. `prompts` are the folder's, by name; those of queries and
    documents are shown.
    """
    dense = dense_weights(encoder)
    imports = ["import torch"]
    imports += ["from safetensors.torch import load_file"] if dense else []
    imports += ["from transformers import AutoModel, AutoTokenizer"]
    imports += ["from transformers.utils import cached_file"] if dense else []
    opening = [
        'tokenizer = AutoTokenizer.from_pretrained("MODEL", padding_side="right")',
        'model = AutoModel.from_pretrained("MODEL").eval()',
        *(f'dense_{n} = load_file(cached_file("MODEL", "{n}_Dense/model.safetensors"))' for n in dense),
    ]
    body = [
        "batch = tokenizer(",
        '    [prompt + text for text in texts], padding=True, truncation=True, return_tensors="pt"',
        ")",
        "with torch.inference_mode():",
        "    states = model(**batch).last_hidden_state",
        *([] if encoder.spec.pooling == "cls" else [MASK]),
        *skipped_prompt(encoder),
        *POOLINGS[encoder.spec.pooling],
        *(line for n, layer in dense.items() for line in dense_lines(n, *layer)),
        f"return {'torch.nn.functional.normalize(vectors, dim=-1)' if encoder.spec.normalize else 'vectors'}",
    ]
    uses = [
        f"queries = encode({QUERIES!r}, {prompts.get('query', '')!r})",
        f"documents = encode({DOCUMENTS!r}, {prompts.get('document', '')!r})",
        f"print({'queries @ documents.T' if encoder.spec.normalize else COSINE})",
    ]
    function = ["", "", 'def encode(texts, prompt=""):', *(f"    {line}" for line in body), "", ""]
    return "\n".join(["```python", *imports, "", *opening, *function, *uses, "```"])


def skipped_prompt(encoder: Encoder) -> list[str]:
    """Lines that take the prompt's tokens out of a mean, where the model leaves them out."""
    if encoder.spec.pool_instruction or encoder.spec.pooling in ("last_token", "cls"):
        return []
    ends = encoder.tokenizer.encode("a").special_tokens_mask[-1]
    end = "  # all but the end token" if ends else ""
    return [
        "if prompt:  # its tokens are read, but not averaged",
        f'    mask[:, : len(tokenizer(prompt)["input_ids"]){" - 1" if ends else ""}] = 0{end}',
    ]


def dense_weights(encoder: Encoder) -> dict[int, tuple[nn.Linear, nn.Module]]:
    """Linear layers and their activations, by the number of their folder."""
    parts = [] if encoder.dense is None else list(encoder.dense.children())
    layers: dict[int, tuple[nn.Linear, nn.Module]] = {}
    for number, (linear, activation) in enumerate(zip(parts[::2], parts[1::2], strict=True), 2):
        assert isinstance(linear, nn.Linear)
        layers[number] = (linear, activation)
    return layers


def dense_lines(number: int, linear: nn.Linear, activation: nn.Module) -> list[str]:
    """One Dense module, applied."""
    bias = f', dense_{number}["linear.bias"]' if linear.bias is not None else ""
    lines = [f'vectors = torch.nn.functional.linear(vectors, dense_{number}["linear.weight"]{bias})']
    if not isinstance(activation, nn.Identity):
        lines.append(f"vectors = torch.nn.{type(activation).__name__}()(vectors)")
    return lines
