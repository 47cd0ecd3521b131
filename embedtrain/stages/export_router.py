"""The second half of an export that names `documents`: the Router package beside the model, and its proof."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.config.tuning import TeacherModel
from embedtrain.model.card import router_card
from embedtrain.model.router import router_prompts, write_router
from embedtrain.model.router_parity import Route, check_router, read_route
from embedtrain.stages.context import StageContext
from embedtrain.stages.teacher import model_folder

ROUTER = "router"


def export_router(
    context: StageContext,
    model: Path,
    teacher: TeacherModel,
    texts: tuple[Sequence[str], Sequence[str]],
    name: str,
) -> dict[str, object]:
    """Write `router/` of the exported `model` and its teacher; the facts for parity.json.

    `texts` are queries and documents to prove it on; `name` stands on the card.
    """
    device, folder = context.machine.device, context.folder / ROUTER
    shutil.rmtree(folder, ignore_errors=True)
    own = read_route(model, "query", texts[0], device=device)
    other = read_route(
        model_folder(context, teacher),
        "document",
        texts[1],
        name=teacher.model,
        max_tokens=teacher.max_tokens,
        device=device,
    )
    check_dims(context.stage.name, teacher.model, own, other)
    prompts = router_prompts(own.prompts, other.prompts)
    default = other.default_prompt
    kept = default is not None and prompts.get(default) == other.prompts.get(default)
    write_router(
        model,
        other.folder,
        folder,
        prompts,
        default_prompt=default if kept else None,
        document_limit=other.limit if teacher.max_tokens is not None else None,
        card=router_card(name, teacher.model, own.dim, prompts),
    )
    return {"documents": teacher.model, **check_router(folder, [own, other], device=device)}


def check_dims(stage: str, teacher: str, own: Route, other: Route) -> None:
    """Raise UserError where a query's vector and a document's have no common space."""
    if own.dim != other.dim:
        raise UserError(
            f"stage '{stage}': documents.model '{teacher}' gives vectors of {other.dim} dims, the exported "
            f"model of {own.dim}; queries and documents can only be compared in the same dims"
        )
