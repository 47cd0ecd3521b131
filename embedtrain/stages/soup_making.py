"""Makes a soup: opens the ingredients, settles their shares, writes the result with all that led to it."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import hypot
from pathlib import Path
from typing import Any

import torch

from embedtrain import __version__
from embedtrain.average import Tensors, merge
from embedtrain.average.fold import fold
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, Machine
from embedtrain.config.soups import Difference, SoupMethod
from embedtrain.config.sources import Source
from embedtrain.model.checkpoint import DENSE
from embedtrain.model.encoder import EncoderSpec
from embedtrain.model.folded import FoldedAdapter, adapted_weights, hash_as_loaded, write_own, write_peft
from embedtrain.model.ingredients import Ingredient, check_alike, open_base, open_ingredient, write_merged
from embedtrain.model.prompts import SourcePrompts
from embedtrain.show.progress import progress
from embedtrain.show.tables import print_table
from embedtrain.stages.soup_choice import Choice, choose
from embedtrain.stages.soup_judge import Judge
from embedtrain.text import source_text

FORMAT = 1
SHOWN_LAYERS = 3


@dataclass(frozen=True)
class Order:
    """What a soup is to be made of, and how.

    `folders` are the ingredients by name, in order. `base` is what they started from, where they do not know
    it. Finished evaluations are kept in `work`.
    """

    folders: Mapping[str, Path]
    method: SoupMethod
    machine: Machine
    work: Path
    seed: int
    base: Base | None = None
    adapter_rank: int | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    as_checkpoint: bool = False


@dataclass(frozen=True)
class Start:
    """The base that ingredients started from: its tensors by their names, and how a spec names it."""

    tensors: Tensors
    spec: EncoderSpec


def make_soup(order: Order, out: Path) -> dict[str, Any]:
    """Write the soup into the folder `out`, whole or not at all; returns what `soup.json` holds.

    The folder is of the kind of the first ingredient, or an embedtrain checkpoint where asked. With
    `adapter_rank` it is an adapter: of a checkpoint a checkpoint, else PEFT's, or both.
    """
    if order.machine.threads:
        torch.set_num_threads(order.machine.threads)
    with ExitStack() as stack:
        ingredients = {name: open_ingredient(path, stack) for name, path in order.folders.items()}
        check_alike(list(ingredients.values()))
        first = next(iter(ingredients.values()))
        start = open_start(order, ingredients, stack)
        choice = choose(order.method, judge_of(order, ingredients), order.seed)
        chosen = [list(ingredients.values())[number].tensors for number in choice.numbers]
        base = start.tensors if start and isinstance(choice.method, Difference) else None
        merged = merge(chosen, choice.method, base=base, seed=order.seed)
        provenance = provenance_of(order, ingredients, choice, start)
        if order.adapter_rank is not None and start is not None:
            return write_folded(order, merged, first, start, out, provenance)
        kind = "checkpoint" if order.as_checkpoint else first.kind
        write_merged(merged, replace(first, kind=kind), out, provenance)
    return provenance


def judge_of(order: Order, ingredients: Mapping[str, Ingredient]) -> Judge:
    """Who judges them, by the prompts of the run's sources."""
    fmt = next(iter(ingredients.values())).spec.text
    sources = {
        name: SourcePrompts(source_text(fmt, source, order.seed), source.tasks)
        for name, source in order.sources.items()
    }
    return Judge(ingredients, sources, order.machine.device, order.work)


def open_start(order: Order, ingredients: Mapping[str, Ingredient], stack: ExitStack) -> Start | None:
    """The base, where it is needed: the adapters' own, else the one that is named.

    Raises UserError where it is needed and nobody names it, or where its tensors are not those of a soup.
    """
    what = "adapter_rank" if order.adapter_rank else f"method {order.method.kind}"
    if not (isinstance(order.method, Difference) or order.adapter_rank):
        return None
    first = next(iter(ingredients.values()))
    for one in ingredients.values():
        if one.base is not None:
            return Start(like(one.base, first.tensors), one.spec)
    if order.base is None:
        raise UserError(
            f"{what} works on differences to the model that all started from, and none of these names it; "
            "give it with --base"
        )
    opened = open_base(order.base, first, stack)
    return Start(like(opened, first.tensors), spec_on(first, order.base))


def like(base: Tensors, tensors: Tensors) -> Tensors:
    """The base with each tensor in the dtype that it has in a soup, where that has it."""
    dtypes = {
        name: tensors.info[name].dtype if name in tensors.info else i.dtype for name, i in base.info.items()
    }
    return Tensors(
        base.origin,
        {name: replace(info, dtype=dtypes[name]) for name, info in base.info.items()},
        lambda name: base.read(name).to(dtypes[name]),
        lambda name, start, stop: base.rows(name, start, stop).to(dtypes[name]),
    )


def spec_on(first: Ingredient, base: Base) -> EncoderSpec:
    """How vectors are made as in `first`, on the base named."""
    return replace(
        first.spec,
        base=base.model,
        base_revision=base.revision,
        base_sha256=base.sha256,
        keep_first_layers=first.config.num_hidden_layers,
        trust_remote_code=base.trust_remote_code,
    )


def provenance_of(
    order: Order, ingredients: Mapping[str, Ingredient], choice: Choice, start: Start | None
) -> dict[str, Any]:
    """All that led to the soup."""
    nothing = {"weight": None, "score": None, "loss": None, "kept": None, "tried_score": None, "reason": None}
    told = choice.told or [{}] * len(ingredients)
    weights = choice.weights or (None,) * len(ingredients)
    names = list(ingredients)
    return {
        "format": FORMAT,
        "method": order.method.model_dump(mode="json"),
        "ingredients": [
            {"name": name, "path": str(one.folder), "hash": one.hash} | nothing | {"weight": weight} | figures
            for (name, one), weight, figures in zip(ingredients.items(), weights, told, strict=True)
        ],
        "order": [names[number] for number in choice.order] if choice.order else None,
        "score": choice.score,
        "judged": choice.facts or None,
        "seed": order.seed,
        "base": start.spec.base if start else None,
        "fold": None,
        "versions": {"embedtrain": __version__, "torch": torch.__version__},
    }


def write_folded(
    order: Order,
    merged: Tensors,
    first: Ingredient,
    start: Start,
    out: Path,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Fold the soup into one adapter on the base, write it, and print what is lost."""
    assert order.adapter_rank is not None
    whole_dense = first.kind == "export" and not order.as_checkpoint
    names = [name for name in merged.info if not (whole_dense and name.startswith(DENSE))]
    layers = set(adapted_weights(first))
    parts = []
    base = start.tensors.only([name for name in start.tensors.info if name in names])
    with progress("fold", total=len(names), unit="tensor") as bar:
        for part in fold(merged.only(names), base, layers, order.adapter_rank):
            parts.append(part)
            bar.advance(1)
    spec = start.spec
    adapter = FoldedAdapter(parts, order.adapter_rank, spec, hash_as_loaded(start.tensors, spec.precision))
    provenance = provenance | {"fold": adapter.facts}
    if order.as_checkpoint:
        write_own(adapter, first, out, provenance)
    else:
        write_peft(adapter, merged, first, out, provenance)
    show_errors(adapter)
    return provenance


def show_errors(adapter: FoldedAdapter) -> None:
    """The errors in the terminal: overall, the worst layers, and what no adapter holds."""
    facts = adapter.facts
    worst = sorted(facts["layers"].items(), key=lambda pair: -pair[1])[:SHOWN_LAYERS]
    lost = [part for part in adapter.parts if part.a_RI is None and part.norm]
    rows: list[tuple[str, str]] = [("all differences together", f"{facts['error']:.2e}")]
    rows += [(name, f"{error:.2e}") for name, error in worst]
    if lost:
        share = hypot(*(part.norm for part in lost)) / hypot(*(part.norm for part in adapter.parts))
        rows.append((f"{len(lost)} tensors that no adapter holds", f"{share:.2e}"))
    note = "norm of what is missing over the norm of the differences to the base; the worst layers are listed"
    print_table(f"folded into an adapter of rank {adapter.rank}", ("of", "relative error"), rows, note=note)


def show_soup(provenance: Mapping[str, Any]) -> None:
    """The ingredients with what was found of them, and their shares."""
    columns = {"name": "ingredient", "score": "score", "loss": "loss", "tried_score": "with it"}
    columns |= {"kept": "kept", "weight": "weight"}
    models = provenance["ingredients"]
    if provenance["order"]:
        models = sorted(models, key=lambda one: provenance["order"].index(one["name"]))
    shown = [key for key in columns if any(one[key] is not None for one in models)]
    digits = {"weight": ".3f", "loss": ".4f"}
    rows = [
        [format(one[k], digits[k]) if k in digits and one[k] is not None else one[k] for k in shown]
        for one in models
    ]
    score = provenance["score"]
    note = None if score is None else f"validation score of the soup: {score:.2f}, best alone: {best(models)}"
    print_table(f"soup by {provenance['method']['kind']}", [columns[k] for k in shown], rows, note=note)


def best(models: list[dict[str, Any]]) -> str:
    """The highest score of one model alone."""
    return f"{max(one['score'] for one in models):.2f}"
