"""The page of a run, written by its evaluate stage: what only open models can show, and all the rest."""

from collections.abc import Collection, Sequence

from embedtrain.artifacts import write_json
from embedtrain.evaluation.kept_tables import kept_sections
from embedtrain.evaluation.measure import Remembering
from embedtrain.evaluation.neighbours import embedding_map, nearest_examples
from embedtrain.evaluation.pairs import pair_sections
from embedtrain.evaluation.report import map_section, neighbour_section, protocol_section, table_sections
from embedtrain.evaluation.tasks import Task
from embedtrain.show.facts import DONE
from embedtrain.show.page import Section
from embedtrain.show.saved import save_sections
from embedtrain.stages.context import StageContext
from embedtrain.stages.measuring import Found
from embedtrain.stages.run_report.facts import made_by, run_facts
from embedtrain.stages.run_report.page import EVALUATED, whole_page
from embedtrain.stages.run_report.scores import score_sections


def run_page(
    context: StageContext,
    found: Found,
    in_domain: Collection[str],
    own: Sequence[Remembering],
    task: Task | None,
) -> str:
    """The page of a run; what its first and last model show on one task is kept for `embedtrain report`.

    Without a task there are tables alone.
    """
    sections = evaluated_sections(found, in_domain, own, task)
    write_json(context.folder / EVALUATED, save_sections(sections))
    folders = made_by(context.run, context.folder.parent, context.inputs)
    folders[context.stage.name] = context.folder
    states = {context.stage.name: (DONE, "")}  # nothing but its record is left to write
    return whole_page(run_facts(context.run, folders, states=states), folders, sections)


def evaluated_sections(
    found: Found, in_domain: Collection[str], own: Sequence[Remembering], task: Task | None
) -> list[Section]:
    """Tables; then scores, neighbours and maps, before training and after it."""
    sections = [
        *table_sections(found.results, in_domain),
        *pair_sections(found.pairs, in_domain),
        *kept_sections(found.results),
    ]
    if task is not None and len(own) > 1:
        before, after = own[0], own[-1]
        sections += score_sections([before, after], task)
        sections.append(neighbour_section(nearest_examples(before, after, task)))
        sections.append(map_section([embedding_map(model, task) for model in (before, after)]))
    return [*sections, protocol_section(found.results)]
