"""The page of a run: its tables, curves, neighbours and maps, made of what its stages left on disk."""

from collections.abc import Collection, Sequence

from embedtrain.evaluation.measure import Remembering
from embedtrain.evaluation.neighbours import embedding_map, nearest_examples
from embedtrain.evaluation.pairs import pair_sections
from embedtrain.evaluation.report import read_curve, report_page
from embedtrain.evaluation.tasks import Task
from embedtrain.show.plots import Points
from embedtrain.stages.context import StageContext
from embedtrain.stages.measuring import Found

CURVE = "curve.jsonl"
DIAGNOSED = {
    "accuracy@1": "diagnostics/accuracy_at_1",
    "hardest negative": "diagnostics/hardest_negative_cosine",
}


def run_page(
    context: StageContext,
    found: Found,
    in_domain: Collection[str],
    own: Sequence[Remembering],
    task: Task,
) -> str:
    """The page of a run: tables and curves; neighbours and maps of its first and last model on one task."""
    run = context.run
    pair = [own[0], own[-1]] if len(own) > 1 else []
    layers = f"its first {run.base.keep_first_layers} layers" if run.base.keep_first_layers else "all layers"
    return report_page(
        found.results,
        in_domain,
        sections=pair_sections(found.pairs, in_domain),
        curves=read_curves(context, "loss"),
        diagnosed={
            f"{name}, {stage}": points
            for name, figure in DIAGNOSED.items()
            for stage, points in read_curves(context, figure).items()
        },
        examples=nearest_examples(pair[0], pair[1], task) if pair else [],
        maps=[embedding_map(model, task) for model in pair],
        title=f"embedtrain: {run.name}",
        lead=f"{run.base.model}, {layers}: before training, after it, and beside other models.",
        facts=[("stages", len(run.stages)), ("seed", run.seed), ("precision", run.precision)],
    )


def read_curves(context: StageContext, figure: str) -> dict[str, Points]:
    """The figure's curves of the run's training stages that have it, from the newest folder of each."""
    curves: dict[str, Points] = {}
    for stage in context.run.stages:
        found = list(context.folder.parent.glob(f"{stage.name}-????????/{CURVE}"))
        if found and stage.kind in ("train", "distil"):
            points = read_curve(max(found, key=lambda path: path.stat().st_mtime), figure)
            curves |= {stage.name: points} if points[0] else {}
    return curves
