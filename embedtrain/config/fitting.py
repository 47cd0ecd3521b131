"""Whether an objective fits its stage: every source has terms, every term has what it asks for."""

from collections.abc import Iterator, Sequence

from embedtrain.config.errors import nearest
from embedtrain.config.faults import Fault, Location
from embedtrain.config.needs import (
    Contrast,
    covers,
    for_source,
    only_negatives,
    uses_batch,
    uses_stored,
    vector_uses,
)
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.config.terms import EmbedDistill, InfoNCE, MarginMSE, Term


def objective_faults(run: Run, stage: Train, here: Location, sources: Sequence[str]) -> Iterator[Fault]:
    """All that is wrong with the objective of a stage that trains on `sources`."""
    terms, spot = stage.objective.terms, (*here, "objective", "terms")
    yield from vector_faults(stage, here)
    yield from mixture_faults(run, stage, here, sources)
    misnamed = [f for n, term in enumerate(terms) for f in name_faults(run, term, (*spot, n), sources)]
    unseen = [source for source in sources if not any(covers(term, source) for term in terms)]
    yield from misnamed
    if unseen and not misnamed:
        yield Fault(spot, f"no term looks at batches of {', '.join(unseen)}")
    for number, term in enumerate(terms):
        seen = [source for source in sources if covers(term, source)]
        most = max((num_negatives(run, stage, source) for source in seen), default=stage.num_negatives)
        told = [*negative_faults(term, most), *contrast_faults(run, term, stage, seen)]
        yield from (Fault((*spot, number, *part), text, (*here, "num_negatives")) for part, text in told)


def num_negatives(run: Run, stage: Train, source: str) -> int:
    """Hard negatives of a row of the source."""
    own = run.sources[source].num_negatives
    return stage.num_negatives if own is None else own


def mixture_faults(run: Run, stage: Train, here: Location, sources: Sequence[str]) -> Iterator[Fault]:
    """What holds for batches of one source, where a batch has several."""
    kind = stage.mixture.batches.kind
    if kind == "one_source":
        return
    why = f"is for batches of one source, and those of stage '{stage.name}' are {kind}"
    for number, term in enumerate(stage.objective.terms):
        if term.sources is not None:
            yield Fault((*here, "objective", "terms", number, "sources"), why)
    for name in sources:
        if run.sources[name].blocks is not None:
            yield Fault(("sources", name, "blocks"), why)
        if run.sources[name].batch_size is not None:
            yield Fault(("sources", name, "batch_size"), why)


def vector_faults(stage: Train, here: Location) -> Iterator[Fault]:
    """A teacher that no term asks, and terms that ask one that is not there."""
    used = [
        (*here, "objective", "terms", number, *use)
        for number, term in enumerate(stage.objective.terms)
        for use in vector_uses(term)
    ]
    if stage.teacher is None:
        text = "needs a teacher's vectors, and the stage has none; add teacher: {model: …} to it"
        yield from (Fault(spot, text, (*here, "teacher")) for spot in used)
    elif not used:
        text = (
            "no term uses it; embed_distill does, and so do `teacher: vectors` in a term and "
            "`judge: teacher` in a mask"
        )
        yield Fault((*here, "teacher"), text, (*here, "objective"))


def name_faults(run: Run, term: Term, spot: Location, sources: Sequence[str]) -> Iterator[Fault]:
    """Sources of a term that are not there, or that the stage does not train on."""
    if term.sources == ():
        yield Fault((*spot, "sources"), "found an empty list; name a source, or leave it out for all")
    for number, name in enumerate(term.sources or ()):
        if name not in run.sources:
            yield Fault((*spot, "sources", number), f"no source '{name}'; {nearest(name, run.sources)}")
        elif name not in sources:
            yield Fault((*spot, "sources", number), f"this stage does not train on source '{name}'")


def negative_faults(term: Term, number: int) -> Iterator[tuple[Location, str]]:
    """Terms that look at hard negatives, where rows have none or too few of them."""
    only = isinstance(term, EmbedDistill) and only_negatives(term)
    if number == 0 and (only or isinstance(term, MarginMSE)):
        yield (), "looks at hard negatives, and num_negatives is 0; set num_negatives"
    for place, mixing in enumerate(term.mixing if isinstance(term, InfoNCE) else ()):
        if mixing.parents == "own_negatives" and number < 2:
            text = f"mixes at least 2 hard negatives of a row, and num_negatives is {number}"
            yield ("mixing", place), text


def contrast_faults(
    run: Run, term: Term, stage: Train, sources: Sequence[str]
) -> Iterator[tuple[Location, str]]:
    """What the switches of the term, and those that a source puts in their place, leave impossible."""
    if not isinstance(term, Contrast):
        return
    told: dict[str, list[str]] = {}
    for source in sources:
        own_term = for_source(term, run.sources[source].blocks)
        for text in contradictions(own_term, num_negatives(run, stage, source)):
            told.setdefault(text, []).append(source)
    for text, names in told.items():
        own = len(names) < len(sources) or text not in contradictions(term, stage.num_negatives)
        yield (), f"in batches of {', '.join(names)}: {text}" if own else text


def contradictions(term: Contrast, number: int) -> Iterator[str]:
    """Each thing that cannot be with these switches."""
    if not uses_batch(term) and not (uses_stored(term) and number):
        yield "nothing to tell the positive from; switch in_batch_positives on, or set num_negatives"
    if isinstance(term, InfoNCE) and term.symmetric and term.document_query:
        yield "symmetric already sets the positive against the queries; leave document_query off"
    parents = [mixing.parents for mixing in term.mixing] if isinstance(term, InfoNCE) else []
    if "own_negatives" in parents and not term.own_negatives:
        yield "mixing takes own negatives, and own_negatives is off; switch it on"
