"""Merges encoders: several in, one out."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from embedtrain.artifacts import write_json
from embedtrain.config.references import is_path
from embedtrain.config.soups import Greedy, Soup
from embedtrain.config.stages import Evaluate
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import ENCODER, encoder_folder
from embedtrain.stages.soup_making import Order, make_soup, show_soup
from embedtrain.stages.soup_places import find_model

SOUP = "soup.json"


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `encoder/` and `soup.json`."""
    stage, run = context.stage, context.run
    assert isinstance(stage, Soup)
    for warning in warnings(context, stage):
        print(warning, file=sys.stderr)
    shutil.rmtree(context.folder / ENCODER, ignore_errors=True)
    order = Order(
        folders={name: ingredient_folder(context, name) for name in stage.from_},
        method=stage.method,
        machine=context.machine,
        work=context.folder,
        seed=context.seed,
        base=run.base,
        adapter_rank=stage.adapter_rank,
        sources=run.sources,
        as_checkpoint=True,
    )
    made = make_soup(order, context.folder / ENCODER)
    write_json(context.folder / SOUP, made)
    show_soup(made)
    return {
        "method": made["method"],
        "weights": {one["name"]: one["weight"] for one in made["ingredients"]},
        "score": made["score"],
        "fold_error": made["fold"]["error"] if made["fold"] else None,
    }


def ingredient_folder(context: StageContext, name: str) -> Path:
    """The folder of an ingredient: an earlier stage's, a snapshot of one, or a path."""
    return find_model(name) if is_path(name) else encoder_folder(context, name)


def warnings(context: StageContext, stage: Soup) -> Iterator[str]:
    """Validation data that an evaluate stage measures too: its figures are no longer of unseen data."""
    judged = set(stage.method.data) if isinstance(stage.method, Greedy) else set()
    for other in context.run.stages:
        if isinstance(other, Evaluate) and (shared := sorted(judged & {*other.data, *other.in_domain_data})):
            yield (
                f"stage '{stage.name}': it chooses by {shared[0]}, which stage '{other.name}' measures: what "
                "was chosen on a set scores too high on it; validate on other data"
            )
