"""README.md of an exported soup: what it is made of, and how it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedtrain.artifacts import write_atomic
from embedtrain.model.card import TAGS, bullet_list, shown, usage
from embedtrain.model.ingredients.facts import HASH_DIGITS
from embedtrain.model.ingredients.opening import Ingredient
from embedtrain.show.tables import markdown_table

COLUMNS = {
    "name": "model",
    "hash": "SHA-256 of its weights",
    "weight": "weight",
    "score": "score",
    "kept": "kept",
}


def write_soup_card(first: Ingredient, provenance: Mapping[str, Any], path: Path) -> None:
    """The card, with front matter for model hubs."""
    front = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:"]
    front += [f"  - {tag}" for tag in (*TAGS, "merge")]
    prompts = first.spec.prompts
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {path.parent.name.removesuffix('.partial')}\n\nA text-embedding model: the weights of several "
        "as one, merged with embedtrain.",
        "## What it is a soup of\n\n" + ingredients_table(provenance),
        method_line(provenance),
        "## What it is\n\n" + bullet_list(describe(first)),
        "## Use\n\n" + usage(prompts),
        "## Prompts\n\n"
        + markdown_table(("name", "text before the input"), [(n, shown(p)) for n, p in prompts.items()]),
        "All about its making stands in `soup.json`. The licences of all models above hold.",
    ]
    write_atomic(path, "\n\n".join(sections) + "\n")


def ingredients_table(provenance: Mapping[str, Any]) -> str:
    """A row a model, with what is known of each."""
    models = provenance.get("ingredients", [])
    keys = [key for key in COLUMNS if any(one.get(key) is not None for one in models)]
    return markdown_table(
        [COLUMNS[key] for key in keys], [[cell(one, key) for key in keys] for one in models]
    )


def cell(ingredient: Mapping[str, Any], key: str) -> str:
    """A value as the table shows it."""
    match ingredient.get(key):
        case None:
            return ""
        case bool(value):
            return "yes" if value else "no"
        case float(value):
            return f"{value:.4g}"
        case value:
            return str(value)[:HASH_DIGITS] if key == "hash" else str(value)


def method_line(provenance: Mapping[str, Any]) -> str:
    """How they were merged, with the method's settings."""
    method = provenance.get("method", {})
    settings = [f"{key} {value}" for key, value in method.items() if key != "kind" and value is not None]
    return f"Method: {method.get('kind', 'mean')}" + (f" ({', '.join(settings)})." if settings else ".")


def describe(first: Ingredient) -> list[str]:
    """What a user of the vectors must know: the same in all of them."""
    facts = first.facts
    return [
        f"architecture: {facts['architecture']}, {facts['layers']} layers, {facts['attention']} attention",
        f"pooling: {facts['pooling']}"
        + ("" if first.spec.pool_instruction else " without the prompt's tokens"),
        f"vectors: {'normalised' if first.spec.normalize else 'not normalised'}, {facts['dtype']}",
        f"texts are cut at {first.spec.text.max_document_tokens} tokens",
    ]
