"""The command `embedtrain encode`: a text file in, a NumPy file of vectors out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from embedtrain.config.errors import UserError, nearest
from embedtrain.config.schema import Machine
from embedtrain.data.store.arrays import make_array
from embedtrain.model.load import open_encoder
from embedtrain.text import Formatted

SIDES = ("query", "document")


def encode_file(
    model: str, texts: Path, out: Path, side: str, machine: Machine, prompt: str | None = None
) -> None:
    """Encode every line of `texts` into a unit vector; `out` receives float32 (lines, dims).

    Lines are written as the side's; by a named prompt of the model where one is given.
    """
    if side not in SIDES:
        raise UserError(f"--side {side}: expected query or document")
    lines = read_lines(texts)
    encoder = open_encoder(model, device=machine.device)
    if prompt is None:
        formatted = encoder.format(lines, "query" if side == "query" else "document")
    else:
        formatted = with_prompt(lines, encoder.spec.prompts, prompt, model)
    limits = {"query": encoder.spec.text.max_query_tokens, "document": encoder.spec.text.max_document_tokens}
    out.parent.mkdir(parents=True, exist_ok=True)
    aside, shape = out.with_name(f"{out.name}.partial"), (len(formatted), encoder.dim)
    vectors = make_array(aside, "float32", shape)
    try:
        encoder.encode_formatted(
            formatted, limits[side], tokens_per_batch=machine.encode_tokens, progress=True, out=vectors
        )
        vectors.flush()
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    print(f"{out}: {shape[0]:,} vectors of {shape[1]} dims")


def read_lines(texts: Path) -> list[str]:
    """The lines of a text file, at least one."""
    if not texts.is_file():
        raise UserError(f"{texts}: no such file")
    try:
        lines = texts.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{texts}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not lines:
        raise UserError(f"{texts}: empty; expected one text a line")
    return lines


def with_prompt(lines: Sequence[str], prompts: Mapping[str, str], name: str, model: str) -> list[Formatted]:
    """The lines behind the model's prompt of this name."""
    if name not in prompts:
        raise UserError(f"--prompt {name}: {model} has no such prompt; {nearest(name, prompts)}")
    return [Formatted(prompts[name] + line, len(prompts[name])) for line in lines]
