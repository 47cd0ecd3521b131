"""Tiny Router packages of two unlike models, for the tests of export and of pairs."""

from collections.abc import Sequence
from pathlib import Path

from exports import DOCUMENTS, PLAIN, QUERIES, source_prompts, tiny_encoder
from tiny_models import save_tiny

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.router import router_prompts, write_router
from embedtrain.model.router_parity import Route, read_route

LEAF_TEXT = PLAIN.model_copy(update={"query": "find: {text}", "document": "leaf: {text}"})
TEACHER_TEXT = PLAIN.model_copy(
    update={"query": "ask: {text}", "document": "read this text: {text}", "max_document_tokens": 40}
)


def export_tiny(
    place: Path, family: str, text: TextFormat, tasks: Sequence[str] = (), **settings: object
) -> Path:
    """The folder of a tiny model; with `tasks` it has prompts of a source named after its family too."""
    encoder = tiny_encoder(place / "base", family, text, **settings)
    told = {"instruction": f"as {family}", "query": "Instruct: {instruction} {text}"}
    sources = source_prompts(encoder, {family: told}, tasks) if tasks else {}
    export_encoder(encoder, place / "model", sources=sources)
    return place / "model"


def export_narrow(place: Path) -> Path:
    """The folder of a model of 16 dims, half of the others'."""
    save_tiny("bert", place / "base", hidden_size=16)
    encoder = load_encoder(Base(model=str(place / "base")), EncoderConfig(), TEACHER_TEXT)
    export_encoder(encoder, place / "narrow")
    return place / "narrow"


def make_router(folder: Path, leaf: Path, teacher: Path, **kept: object) -> tuple[Route, Route]:
    """Write a package of both folders, and what each gives by itself."""
    routes = (read_route(leaf, "query", QUERIES), read_route(teacher, "document", DOCUMENTS))
    write_router(leaf, teacher, folder, router_prompts(routes[0].prompts, routes[1].prompts), **kept)
    return routes
