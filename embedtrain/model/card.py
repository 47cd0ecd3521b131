"""The model card: README.md of an exported folder, made of the run's facts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from embedtrain.artifacts import write_atomic
from embedtrain.model.encoder import Encoder
from embedtrain.show.tables import markdown_table

SHOWN_CHARS = 200
TAGS = ("sentence-transformers", "feature-extraction", "sentence-similarity", "embedtrain")


class SourceFacts(TypedDict, total=False):
    """One source of training text."""

    num_rows: int
    weight: float
    instruction: str
    licence: str


class Table(TypedDict):
    """Measured figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Facts(TypedDict, total=False):
    """What a run knows of the model it exports; each part that is missing is left out of the card."""

    name: str
    licence: str
    stages: Sequence[str]
    sources: Mapping[str, SourceFacts]
    figures: Sequence[Table]
    seed: int
    embedtrain_version: str


def write_card(
    encoder: Encoder, path: Path, precision: str, prompts: Mapping[str, str], facts: Facts
) -> None:
    """README.md with YAML front matter."""
    name = facts.get("name", "model")
    sections = [
        front_matter(encoder, facts),
        f"# {name}\n\nA text-embedding model trained with embedtrain.",
        "## What it is\n\n" + bullet_list(describe(encoder, precision, facts)),
        "## Use\n\n" + usage(prompts),
        "## Prompts\n\n"
        + markdown_table(("name", "text before the input"), [(n, shown(p)) for n, p in prompts.items()]),
        sources_section(facts),
        stages_section(facts),
        *(f"## {t['title']}\n\n" + markdown_table(t["columns"], t["rows"]) for t in facts.get("figures", ())),
        "## Servers\n\n" + servers(encoder),
    ]
    write_atomic(path, "\n\n".join(section.strip() for section in sections if section) + "\n")


def shown(prompt: str) -> str:
    """A prompt in a table; one with examples is long, and whole in config_sentence_transformers.json."""
    if len(prompt) <= SHOWN_CHARS:
        return f"`{prompt!r}`"
    return f"`{prompt[:SHOWN_CHARS]!r}` … ({len(prompt):,} characters, in config_sentence_transformers.json)"


def front_matter(encoder: Encoder, facts: Facts) -> str:
    """Metadata for model hubs; `base_model` only where the base is a hub id."""
    lines = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:"]
    lines += [f"  - {tag}" for tag in TAGS]
    if encoder.spec.base_revision is not None:
        lines.append(f"base_model: {encoder.spec.base}")
    if "licence" in facts:
        lines.append(f"license: {facts['licence'].lower()}")
    return "---\n" + "\n".join(lines) + "\n---"


def describe(encoder: Encoder, precision: str, facts: Facts) -> list[str]:
    """What a user of the vectors must know."""
    spec = encoder.spec
    revision = f", revision `{spec.base_revision}`" if spec.base_revision else ""
    digest = f", SHA-256 `{spec.base_sha256}`" if spec.base_sha256 else ""
    kept = f", its first {spec.keep_first_layers} layers" if spec.keep_first_layers else ""
    limits = spec.text.max_query_tokens, spec.text.max_document_tokens
    lines = [
        f"base: `{spec.base}`{revision}{digest}{kept}",
        f"architecture: {type(encoder.backbone).__name__}, {spec.attention} attention, {spec.pooling} pooling"
        + ("" if spec.pool_instruction else " without the prompt's tokens"),
        f"vectors: {encoder.dim} dims, {'normalised' if spec.normalize else 'not normalised'}, {precision}",
        f"trained on at most {limits[0]} tokens a query and {limits[1]} a document; longer texts are cut at "
        f"{max(limits)}",
        f"special tokens: {special_tokens(encoder)}",
        f"licence: {facts.get('licence', 'not recorded; the licence of the base holds at least')}",
    ]
    lines += [
        f"{key.replace('_', ' ')}: {facts[key]}" for key in ("seed", "embedtrain_version") if key in facts
    ]
    return lines


def special_tokens(encoder: Encoder) -> str:
    """What the tokenizer puts around every text, also around one that is cut."""
    encoding = encoder.tokenizer.encode("a")
    around = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
    written = " ".join(token if special else "text" for token, special in around)
    return f"`{written}`, also where a text is cut" if any(encoding.special_tokens_mask) else "none"


def usage(prompts: Mapping[str, str]) -> str:
    """A snippet that runs as it stands, once MODEL is the folder or id of the model."""
    extra = [name for name in prompts if not name.endswith(("query", "document"))]
    named = f'\nmodel.encode(queries, prompt_name="{extra[0]}")  # a prompt of its own' if extra else ""
    return f"""```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("MODEL")
queries = ["How do I remove a package?"]
documents = ["apt remove NAME removes a package.", "The moon has no air."]
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))
print(scores){named}
```

Needs `transformers >= 5.2`: older ones ignore the attention switch of this folder without a word."""


def router_card(name: str, documents: str, dim: int, prompts: Mapping[str, str]) -> str:
    """README.md of a Router package."""
    front = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:"]
    front += [f"  - {tag}" for tag in (*TAGS, "asymmetric")]
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {name}, with the model of its documents\n\nTwo text-embedding models that share {dim} dims: "
        f"queries are encoded by {name}, documents by `{documents}`. Made with embedtrain.",
        "## Use\n\n" + usage({key: prompts[key] for key in ("query", "document")}),
        "Encode queries by `encode_query` and documents by `encode_document`. `encode` does not say which a "
        "text is, and takes the model of documents. Needs sentence-transformers 5 or later; other servers "
        "load one model at a time, and so the two models one by one.",
        "## Prompts\n\n"
        + markdown_table(("name", "text before the input"), [(n, shown(p)) for n, p in prompts.items()]),
    ]
    return "\n\n".join(sections) + "\n"


def sources_section(facts: Facts) -> str:
    """What it was trained on."""
    rows = [
        (name, s.get("num_rows"), s.get("weight"), s.get("licence"), s.get("instruction"))
        for name, s in facts.get("sources", {}).items()
    ]
    table = markdown_table(("source", "rows", "weight", "licence", "instruction"), rows)
    return f"## Training data\n\n{table}" if rows else ""


def stages_section(facts: Facts) -> str:
    """How it was made."""
    stages = facts.get("stages", ())
    return "## Stages\n\n" + "\n".join(f"{i}. {stage}" for i, stage in enumerate(stages, 1)) if stages else ""


def servers(encoder: Encoder) -> str:
    """What sets this model apart from what servers assume."""
    text = (
        "Other servers than sentence-transformers do not add prompts by themselves: send each text with its "
        "prompt in front."
    )
    if not encoder.spec.pool_instruction:
        text += (
            " Prompt tokens are left out of the pool here, which only sentence-transformers honours: other "
            "servers give different vectors wherever there is a prompt."
        )
    return text


def bullet_list(lines: Sequence[str]) -> str:
    """Markdown bullets."""
    return "\n".join(f"- {line}" for line in lines)
