"""From a base named in a run file, or a folder on disk, to an encoder that is proven to attend as asked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from packaging.version import Version
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.adapter import adapter_base, fold_adapter
from embedtrain.model.checkpoint import Saved, check_base, fill_adapter, read_saved
from embedtrain.model.encoder import Encoder, EncoderSpec
from embedtrain.model.existing import ADAPTER, Existing, read_dense, read_existing, settle, settle_text
from embedtrain.model.layout import (
    cut_layers,
    is_bidirectional,
    longest_window,
    read_config,
    read_kind,
    set_attention,
)
from embedtrain.model.proof import prove_attention
from embedtrain.model.proof_packing import pack_texts
from embedtrain.model.safe_files import check_weights
from embedtrain.model.source import ModelFolder, resolve_model
from embedtrain.model.tokens import end_token, load_tokenizer

OLDEST_TRANSFORMERS = "5.2"


@dataclass(frozen=True)
class Parts:
    """The folders an encoder is put together from."""

    weights: Path
    config: Path
    tokenizer: Path
    adapter: Path | None = None
    dense: nn.Module | None = None
    dense_folders: tuple[Path, ...] = ()
    lowercase: bool = False
    tokenizer_is_ours: bool = False  # written by a checkpoint, end token included
    dtype: str | None = None  # of the stored weights, where it is not the run's precision


def require_transformers(version: str = transformers.__version__) -> None:
    """Refuse a transformers that ignores `is_causal` without a word."""
    if Version(version).release < Version(OLDEST_TRANSFORMERS).release:
        raise UserError(
            f"transformers {version} ignores `is_causal: false` silently, so every decoder would stay "
            f"causal; install transformers >= {OLDEST_TRANSFORMERS}"
        )


def load_encoder(
    base: Base, config: EncoderConfig, text: TextFormat, *, precision: str = "float32", device: str = "cpu"
) -> Encoder:
    """An encoder on any base; what an embedder says of itself completes `config` or, at odds, is refused."""
    require_transformers()
    parts, spec, is_embedder = settle_base(base, config, text, precision)
    encoder = build(parts, spec, device)
    if is_embedder:
        through = "" if encoder.dense is None else " through its Dense"
        print(f"{spec.describe()}, {encoder.dim} dims{through}", file=sys.stderr)
    return encoder


def open_tokenizer(base: Base, config: EncoderConfig, text: TextFormat) -> tuple[Tokenizer, EncoderSpec]:
    """The tokenizer that `load_encoder` would give, and how texts are written; the backbone is not read."""
    parts, spec, _ = settle_base(base, config, text, "float32")
    return read_tokenizer(parts, spec), spec


def settle_base(
    base: Base, config: EncoderConfig, text: TextFormat, precision: str
) -> tuple[Parts, EncoderSpec, bool]:
    """Where the encoder's parts are, the config completed by what the base says, and if it is an embedder."""
    source = resolve_model(base.model, revision=base.revision, sha256=base.sha256)
    if (source.path / "encoder.json").is_file():
        raise UserError(
            f"{base.model}: it is an embedtrain checkpoint; start from its exported folder instead"
        )
    found = read_existing(source.path, base.model)
    parts = find_parts(source, found, base)
    said = replace(found or Existing(source.path), attention=said_attention(parts, found, base))
    config = settle(said, config, base.model)
    spec = EncoderSpec(
        base=base.model,
        base_revision=source.revision,
        base_sha256=base.sha256,
        keep_first_layers=base.keep_first_layers,
        trust_remote_code=base.trust_remote_code,
        precision=precision,
        normalize=said.normalize,
        prompts=said.prompts,
        text=settle_text(said, text, base.model),
        **config.model_dump(),
    )
    return parts, spec, found is not None


def open_encoder(path: str | Path, *, device: str = "cpu") -> Encoder:
    """An embedtrain checkpoint, or an embedder: a sentence-transformers folder, a PEFT adapter, a package."""
    require_transformers()
    folder = Path(path)
    if (folder / "encoder.json").is_file():
        return open_checkpoint(folder, read_saved(folder), device)
    base = Base(model=str(path))
    source = resolve_model(base.model)
    if read_existing(source.path, base.model) is None:
        raise UserError(
            f"{path}: no embedder; found neither encoder.json (an embedtrain checkpoint) nor modules.json "
            f"(a sentence-transformers folder) nor {ADAPTER} (a PEFT adapter)"
        )
    return load_encoder(base, EncoderConfig(), TextFormat(), device=device)


def open_checkpoint(folder: Path, saved: Saved, device: str) -> Encoder:
    """The encoder that `save_encoder` wrote, proven again."""
    spec = saved.spec
    if saved.lora is None:
        encoder = build(find_saved(folder, saved), spec, device)
        encoder.folded = True
        return encoder
    parts = find_base(spec)
    encoder = build(replace(parts, tokenizer=folder, tokenizer_is_ours=True, lowercase=False), spec, device)
    check_base(encoder, saved, folder)
    fill_adapter(encoder, saved.lora, folder)
    return encoder


def find_saved(folder: Path, saved: Saved) -> Parts:
    """The parts of a checkpoint that holds all weights."""
    places = tuple(sorted(folder.glob("dense_*")))
    dense = read_dense(places, str(folder))
    return Parts(
        folder,
        folder,
        folder,
        dense=dense,
        dense_folders=places,
        tokenizer_is_ours=True,
        dtype=saved.dtype,
    )


def find_base(spec: EncoderSpec) -> Parts:
    """Where the parts of the base are that a spec names."""
    source = resolve_model(spec.base, revision=spec.base_revision, sha256=spec.base_sha256)
    base = Base(
        model=spec.base, keep_first_layers=spec.keep_first_layers, trust_remote_code=spec.trust_remote_code
    )
    return find_parts(source, read_existing(source.path, spec.base), base)


def find_parts(source: ModelFolder, found: Existing | None, base: Base) -> Parts:
    """Where weights, config and tokenizer are; a PEFT adapter points to a base of its own."""
    if found is None:
        return Parts(source.path, source.path, source.path)
    dense = read_dense(found.dense, base.model)
    folder = found.backbone
    if not (folder / ADAPTER).is_file():
        return Parts(
            folder, folder, folder, dense=dense, dense_folders=found.dense, lowercase=found.lowercase
        )
    name, revision = adapter_base(folder)
    under = resolve_model(name, revision=revision).path
    if (under / ADAPTER).is_file():
        raise UserError(f"{base.model}: its base {name} is an adapter itself; merge that one first")
    holds = {
        name: folder if (folder / name).is_file() else under for name in ("config.json", "tokenizer.json")
    }
    return Parts(
        under, holds["config.json"], holds["tokenizer.json"], folder, dense, found.dense, found.lowercase
    )


def said_attention(parts: Parts, found: Existing | None, base: Base) -> str | None:
    """A decoder's attention as its folder tells it; a plain model tells it only where it is bidirectional."""
    config = read_config(str(parts.config), base.model, trust_remote_code=base.trust_remote_code)
    if read_kind(config, base.model, trust_remote_code=base.trust_remote_code) == "encoder":
        return None
    if is_bidirectional(config):
        return "bidirectional"
    tells = found is not None and (parts.adapter is None or parts.config == parts.adapter)
    return "causal" if tells else None


def build(parts: Parts, spec: EncoderSpec, device: str) -> Encoder:
    """Read the weights, set the attention, and prove it."""
    config, window = settle_config(parts, spec)
    backbone = read_backbone(parts, config, spec)
    if parts.adapter is not None:
        backbone = fold_adapter(backbone, parts.adapter, spec.base)
    encoder = Encoder(backbone, read_tokenizer(parts, spec), spec, parts.dense).to(device).eval()
    try:
        prove_attention(backbone, spec.attention, window)
    except UserError as error:
        raise UserError(f"{spec.base}: {error}") from None
    if spec.attention_kernel == "packed" and (fault := pack_texts(backbone, spec.attention)):
        print(f"{spec.base}: texts are padded, not packed: {fault}", file=sys.stderr)
    return encoder


def settle_config(parts: Parts, spec: EncoderSpec) -> tuple[PretrainedConfig, int]:
    """config.json as the backbone is built from it, and tokens that its window reached (0: all of a text)."""
    trust = spec.trust_remote_code
    config = read_config(str(parts.config), spec.base, trust_remote_code=trust)
    kind = read_kind(config, spec.base, trust_remote_code=trust)
    window = longest_window(config)
    cut_layers(config, spec.keep_first_layers, spec.base)
    set_attention(config, kind, spec.attention, spec.base)
    return config, window


def read_tokenizer(parts: Parts, spec: EncoderSpec) -> Tokenizer:
    """The tokenizer, ending every text as the spec asks."""
    wanted = spec.append_eos and not parts.tokenizer_is_ours
    eos = end_token(parts.tokenizer) if wanted else None
    if wanted and eos is None:
        raise UserError(f"{spec.base}: append_eos is true, but tokenizer_config.json names no eos_token")
    return load_tokenizer(parts.tokenizer, eos=eos, lowercase=parts.lowercase)


def read_backbone(parts: Parts, config: PretrainedConfig, spec: EncoderSpec) -> PreTrainedModel:
    """The bare model without heads; every weight must be there."""
    check_weights(parts.weights)
    try:
        with quiet():
            backbone, report = AutoModel.from_pretrained(
                parts.weights,
                config=config,
                dtype=getattr(torch, parts.dtype or spec.precision),
                attn_implementation="sdpa" if spec.attention_kernel == "packed" else spec.attention_kernel,
                use_safetensors=True,
                trust_remote_code=spec.trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{spec.base}: its weights cannot be read: {str(error).splitlines()[0]}") from None
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(f"{spec.base}: {len(missing)} weights are missing, first {missing[0]}")
    if "pooler" in dict(backbone.named_children()):
        backbone.pooler = None
    backbone.config.use_cache = False
    return backbone


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no report while transformers reads: what is missing is checked here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
