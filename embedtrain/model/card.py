"""The model card: README.md of an exported folder, made of the run's facts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from embedtrain.artifacts import write_atomic
from embedtrain.model.encoder import Encoder
from embedtrain.model.snippets import transformers_snippet
from embedtrain.show.facts import RunFacts
from embedtrain.show.tables import markdown_table

SHOWN_CHARS = 200
TAGS = ("sentence-transformers", "feature-extraction", "sentence-similarity", "embedtrain")


def write_card(
    encoder: Encoder, path: Path, precision: str, prompts: Mapping[str, str], facts: RunFacts
) -> None:
    """README.md with YAML front matter. It holds nothing that another run of the same config would change."""
    name = facts.name or "model"
    from_base = "trained" if trained(facts) else "exported"
    sections = [
        front_matter(encoder, facts),
        f"# {name}\n\nA text-embedding model {from_base} with embedtrain.",
        "## What it is\n\n" + bullet_list(describe(encoder, precision, facts)),
        "## Use\n\n" + usage(prompts),
        "### Without sentence-transformers\n\n" + transformers_snippet(encoder, prompts),
        "## Prompts\n\n" + prompt_table(prompts),
        sources_section(facts),
        stages_section(facts),
        "## Limits\n\n" + bullet_list(limits(encoder, facts)),
        "## Servers\n\n" + servers(encoder),
        "## Base\n\n" + base_words(encoder),
    ]
    write_atomic(path, "\n\n".join(section.strip() for section in sections if section) + "\n")


def shown(prompt: str) -> str:
    """A prompt in a table; one with examples is long, and whole in config_sentence_transformers.json."""
    if len(prompt) <= SHOWN_CHARS:
        return f"`{prompt!r}`"
    return f"`{prompt[:SHOWN_CHARS]!r}` … ({len(prompt):,} characters, in config_sentence_transformers.json)"


def prompt_table(prompts: Mapping[str, str]) -> str:
    """What stands before a text, by name."""
    return markdown_table(("name", "text before the input"), [(n, shown(p)) for n, p in prompts.items()])


def trained(facts: RunFacts) -> bool:
    """Whether any stage has changed the base's weights."""
    return any(stage.kind in ("train", "distil", "soup") for stage in facts.stages)


def front_matter(encoder: Encoder, facts: RunFacts) -> str:
    """Metadata for model hubs; `base_model` only where the base is a hub id."""
    data: dict[str, object] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": list(TAGS),
    }
    if encoder.spec.base_revision is not None:
        data["base_model"] = encoder.spec.base
    if facts.languages:
        data["language"] = list(facts.languages)
    if facts.licence:
        data["license"] = facts.licence.lower()
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---"


def describe(encoder: Encoder, precision: str, facts: RunFacts) -> list[str]:
    """What a user of the vectors must know."""
    spec = encoder.spec
    revision = f", revision `{spec.base_revision}`" if spec.base_revision else ""
    digest = f", SHA-256 `{spec.base_sha256}`" if spec.base_sha256 else ""
    kept = f", its first {spec.keep_first_layers} layers" if spec.keep_first_layers else ""
    lines = [
        f"base: `{spec.base}`{revision}{digest}{kept}",
        f"architecture: {type(encoder.backbone).__name__}, {spec.attention} attention, {spec.pooling} pooling"
        + ("" if spec.pool_instruction else " without the prompt's tokens"),
        f"vectors: {encoder.dim} dims, {'normalised' if spec.normalize else 'not normalised'}, {precision}",
        f"special tokens: {special_tokens(encoder)}",
        f"licence: {facts.licence or 'not recorded; that of the base holds at least'}",
    ]
    lines += [f"seed: {facts.seed}"] if facts.seed is not None else []
    lines += [f"embedtrain version: {facts.embedtrain_version}"] if facts.embedtrain_version else []
    return lines


def limits(encoder: Encoder, facts: RunFacts) -> list[str]:
    """How long texts are, and what languages were seen, as far as it is known."""
    text = encoder.spec.text
    longest = max(text.max_query_tokens, text.max_document_tokens)
    lines = [f"Reads texts of up to {longest} tokens, the prompt included; longer ones are cut."]
    if facts.trained_tokens:
        query, document = facts.trained_tokens
        lines.append(f"Trained on queries of up to {query} tokens and documents of up to {document}.")
    elif not trained(facts):
        lines.append("Not trained for embeddings: it stands here to be compared with.")
    if facts.languages:
        lines.append(f"Languages seen in training: {', '.join(facts.languages)} (others were filtered out).")
    elif trained(facts):
        lines.append("Languages: those of the training data above; nobody counted them.")
    return lines


def base_words(encoder: Encoder) -> str:
    """Whose work this stands on."""
    spec = encoder.spec
    where = f"[{spec.base}](https://huggingface.co/{spec.base})" if spec.base_revision else f"`{spec.base}`"
    return f"The base is {where}. Its licence holds for these weights too; cite it as its own card asks."


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
        "## Prompts\n\n" + prompt_table(prompts),
    ]
    return "\n\n".join(sections) + "\n"


def sources_section(facts: RunFacts) -> str:
    """What it was trained on, under which licence."""
    rows = [(s.name, s.num_rows, s.weight, s.licence, s.mteb_overlap, s.instruction) for s in facts.sources]
    columns = ("source", "rows", "weight", "licence", "overlap with MTEB", "instruction")
    kept = [n for n, column in enumerate(zip(*rows, strict=True)) if n < 3 or any(column)]
    table = markdown_table([columns[n] for n in kept], [[row[n] for n in kept] for row in rows])
    return f"## Training data\n\n{table}" if rows else ""


def stages_section(facts: RunFacts) -> str:
    """How it was made: the stages that it comes from, and what training minimised."""
    stages = [stage for stage in facts.stages if stage.kind not in ("export", "evaluate")]
    lines = [f"{n}. {stage.name} ({stage.kind}): {stage.does}" for n, stage in enumerate(stages, 1)]
    formulas: dict[str, list[str]] = {}
    for stage in stages:
        if stage.objective:
            formulas.setdefault(stage.objective, []).append(stage.name)
    blocks = [f"{', '.join(names)}:\n\n```text\n{text}\n```" for text, names in formulas.items()]
    return "\n\n".join(["## Stages", "\n".join(lines), *blocks]) if stages else ""


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
