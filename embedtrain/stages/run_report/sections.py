"""The sections of a run's page that need no model: the diagram, the data, the cost. No torch."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from embedtrain.mining.report.page import GROUPS, UNUSED
from embedtrain.show.diagram import Box, Diagram
from embedtrain.show.facts import BASE, DONE, ROWS, RunFacts, ShareFacts, StageFacts
from embedtrain.show.page import Block, Grid, Plot, Section
from embedtrain.show.plots import share_plot
from embedtrain.show.progress import duration_text

KNOWN_REASONS = {reason.name.lower(): group for reason, group in GROUPS.items()} | {
    "row_dropped": "row dropped"
}
SHARES = "Rows of each source among all of a stage: planned from weights and sizes; drawn, as its curve says."
REFUSED = (
    "What became of the mined candidates. Known: the query itself, or one of its positives. Not used: its "
    "rank is outside the window, its text is there already, or the row has enough."
)


def diagram_section(facts: RunFacts) -> Section:
    """The stages and what they read, base and rows at the top."""
    top = [Box(BASE, "model", facts.base, "start")]
    if facts.sources:
        top.append(Box(ROWS, "data", ", ".join(source.name for source in facts.sources), "start"))
    boxes = [*top, *map(stage_box, facts.stages)]
    missing = f" Not done: {', '.join(facts.missing)}." if facts.missing else ""
    caption = f"Arrows lead from what is read to the stage that reads it.{missing}"
    return Section("The run", [Diagram(boxes, caption)])


def stage_box(stage: StageFacts) -> Box:
    """A stage with its time, or why it has none."""
    if stage.state == DONE:
        time = duration_text(stage.seconds) if stage.seconds is not None else ""
        return Box(stage.name, stage.kind, stage.does, "done", time, stage.reads)
    text = f"{stage.does} ({stage.why})" if stage.why else stage.does
    return Box(stage.name, stage.kind, text, "wait", stage.state, stage.reads)


def data_section(facts: RunFacts) -> list[Section]:
    """Sources and licences, what each training stage saw of them, and what became of mined candidates."""
    if not facts.sources:
        return []
    rows = [[s.name, s.num_rows, s.weight, s.licence, s.mteb_overlap] for s in facts.sources]
    caption = "Licence and overlap with MTEB as the card beside the rows states them."
    blocks: list[Block] = [Grid(["source", "rows", "weight", "licence", "MTEB overlap"], rows, caption)]
    blocks += share_blocks([stage for stage in facts.stages if stage.shares])
    blocks += [block for stage in facts.stages if stage.candidates for block in candidate_blocks(stage)]
    return [Section("Data", blocks)]


def share_blocks(stages: Sequence[StageFacts]) -> list[Block]:
    """A bar for each stage, and the figures."""
    if not stages:
        return []
    bars = [(stage.name, {s.source: part_of(s) for s in stage.shares}) for stage in stages]
    rows = [
        [stage.name if number == 0 else "", s.source, s.num_rows, *share_cells(s)]
        for stage in stages
        for number, s in enumerate(stage.shares)
    ]
    columns = ["stage", "source", "rows", "planned, %", "drawn, %", "rows drawn", "passes"]
    first = frozenset(n for n, row in enumerate(rows) if row[0] and n)
    plot = Plot(share_plot(bars, "Shares of the sources"), SHARES, "What training draws")
    return [plot, Grid(columns, rows, rule_before=first)]


def part_of(share: ShareFacts) -> float:
    """Drawn where that is known, else planned."""
    return share.planned if share.drawn is None else share.drawn


def share_cells(share: ShareFacts) -> list[object]:
    """Per cent planned and drawn, rows drawn, and how often each row was."""
    drawn, rows = share.drawn, share.drawn_rows
    if drawn is None or rows is None:
        return [100 * share.planned, None, None, None]
    return [100 * share.planned, 100 * drawn, rows, rows / share.num_rows if share.num_rows else None]


def candidate_blocks(stage: StageFacts) -> list[Block]:
    """What became of the candidates of a select stage: a bar a source, and counts."""
    grouped = {name: reason_shares(counts) for name, counts in stage.candidates.items()}
    seen = [group for group in group_names(grouped) if any(found.get(group) for found in grouped.values())]
    bars = [(name, {group: found.get(group, 0.0) for group in seen}) for name, found in grouped.items()]
    reasons = list(dict.fromkeys(name for counts in stage.candidates.values() for name in counts))
    shown = [name for name in reasons if any(counts.get(name) for counts in stage.candidates.values())]
    rows = [
        [name, *(counts.get(reason, 0) for reason in shown), *stage.rows[name].values()]
        for name, counts in stage.candidates.items()
    ]
    columns = ["source", *(reason.replace("_", " ") for reason in shown)]
    columns += [f"rows {name.replace('_', ' ')}" for name in next(iter(stage.rows.values()), {})]
    title = f"What became of the candidates in {stage.name}"
    plots: list[Block] = [Plot(share_plot(bars, title, faint=[UNUSED]), REFUSED, title)] if seen else []
    return [*plots, Grid(columns, rows)]


def reason_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Shares of what became of candidates, reasons grouped."""
    grouped: Counter[str] = Counter()
    for name, count in counts.items():
        grouped[KNOWN_REASONS.get(name, name.replace("_", " "))] += count
    return {name: count / grouped.total() for name, count in grouped.items() if count}


def group_names(grouped: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Groups of all sources: the kept ones first, those that nobody needed last."""
    names = dict.fromkeys(name for shares in grouped.values() for name in shares)
    return ["kept", *(name for name in names if name not in ("kept", UNUSED)), UNUSED]


def cost_section(facts: RunFacts) -> list[Section]:
    """Time, tokens and memory of each finished stage, and what they ran on."""
    done = [stage for stage in facts.stages if stage.seconds is not None]
    if not done:
        return []
    cells: dict[str, list[object]] = {
        "stage": [stage.name for stage in done],
        "kind": [stage.kind for stage in done],
        "time": [clock_text(stage.seconds or 0.0) for stage in done],
        "steps": [stage.steps for stage in done],
        "tokens": [stage.tokens for stage in done],
        "tokens/s": [round(s.tokens_per_second) if s.tokens_per_second else None for s in done],
        "peak memory": [gigabytes(stage.peak_bytes) for stage in done],
        "peak GPU memory": [gigabytes(stage.peak_gpu_bytes) for stage in done],
        "seed": [stage.seed for stage in done],
    }
    known = {name: column for name, column in cells.items() if any(cell is not None for cell in column)}
    total = {"stage": "all", "time": clock_text(facts.seconds), "tokens": facts.tokens or None}
    rows = [*map(list, zip(*known.values(), strict=True)), [total.get(name) for name in known]]
    caption = (
        "Time on the clock, loading included. Tokens: of all steps, both sides; tokens/s without warm-up."
    )
    caption += " Peak memory: of the first process." if "peak memory" in known else ""
    if untimed := [stage.name for stage in facts.stages if stage.state == DONE and stage.seconds is None]:
        caption += f" Not counted: {', '.join(untimed)}, which wrote this page."
    grid = Grid(list(known), rows, caption, rule_before=frozenset({len(done)}))
    return [Section("Cost", [grid, *origin_blocks(facts, done)])]


def clock_text(seconds: float) -> str:
    """A duration that no narrow column breaks."""
    return duration_text(seconds).replace(" ", "\N{NO-BREAK SPACE}")


def gigabytes(size: int | None) -> str | None:
    """`1.4 GB`, unbroken."""
    return None if size is None else f"{size / 1e9:.1f}\N{NO-BREAK SPACE}GB"


def origin_blocks(facts: RunFacts, done: Sequence[StageFacts]) -> list[Block]:
    """Seed, precision, machines and versions; where stages differ, which had which."""
    rows: list[list[object]] = [["seed", str(facts.seed)], ["precision", facts.precision]]
    rows += [["machine", text] for text in told(done, lambda s: str(s.machine) if s.machine else "")]
    rows += [["versions", text] for text in told(done, versions_text)]
    return [Grid(["fact", "value"], rows)]


def versions_text(stage: StageFacts) -> str:
    """`python 3.11.7, torch 2.13.0`."""
    return ", ".join(f"{name} {version}" for name, version in stage.versions.items())


def told(stages: Sequence[StageFacts], of: Callable[[StageFacts], str]) -> list[str]:
    """Each distinct text; where there are several, with the stages that it is of."""
    names: dict[str, list[str]] = {}
    for stage in stages:
        if text := of(stage):
            names.setdefault(text, []).append(stage.name)
    return list(names) if len(names) == 1 else [f"{text} ({', '.join(n)})" for text, n in names.items()]
