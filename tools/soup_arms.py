"""The runs that `tools/compare_soups.py` compares: the quickstart with three mixes of data, and their soups.

All start from the quickstart's stage 1, trained without the rows that greedy soups are validated on, and take
as many steps on as many rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.config.load import load_run, resolved
from embedtrain.config.schema import Run
from embedtrain.data.rows import Row, read_rows, write_rows
from tools.negative_arms import REFERENCE, export_name

QUICKSTART = Path(__file__).resolve().parent.parent / "configs" / "quickstart.yaml"
MINED = ("debian", "wikipedia", "wordnet", "usage")
TASKS = tuple(f"rows/tests/{name}" for name in ("debian", "wikipedia", "wordnet", "faq"))
Section = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large the comparison is."""

    layers: int
    pretrain_steps: int
    mined_rows: int  # a source
    corpus: int  # documents a source
    steps: int
    batch_size: int
    held_out_rows: int  # a source
    validation_tokens: int
    test_tokens: int


SIZES = {
    "quickstart": Size(8, 220, 300, 600, 10, 32, 200, 24_000, 40_000),
    "smoke": Size(2, 3, 60, 120, 2, 8, 20, 4_000, 4_000),
}


@dataclass(frozen=True)
class Arm:
    """A run of stage 2, told by the sources of its rows, or a soup of all these runs."""

    name: str
    says: str
    sources: tuple[str, ...] = ()
    method: str | None = None


ARMS = (
    Arm("all", "runs on all four mined sources", MINED),
    Arm("passages", "runs on debian and wikipedia", MINED[:2]),
    Arm("phrases", "runs on wordnet and usage", MINED[2:]),
    Arm("uniform", "soup of the three, all alike", method="mean"),
    Arm("greedy", "soup of those that raise the validation score", method="greedy"),
)
RUNS = tuple(arm for arm in ARMS if arm.method is None)
SOUPS = tuple(arm for arm in ARMS if arm.method is not None)
GREEDY = SOUPS[-1]
MIDDLE = "mean of runs"


def comparisons() -> list[tuple[str, str]]:
    """What is compared with what: soups with what they are made of, with its middle and each other."""
    singles = [REFERENCE, *(arm.name for arm in RUNS), MIDDLE]
    return [(soup.name, single) for soup in SOUPS for single in singles] + [("greedy", "uniform")]


# --- held-out rows ------------------------------------------------------------------------------------------


def hold_out(folder: Path, num_rows: int) -> None:
    """Split the rows of each mined source into `rows/` to train on and `validation/` for greedy soups.

    The test rows of these sources are what is measured in the end; a choice of ingredients may not see them.
    """
    for name in MINED:
        parts = split(read_rows(f"rows/{name}/train.parquet"), num_rows)
        for kind, rows in zip(("rows", "validation"), parts, strict=True):
            write_rows(folder / kind / f"{name}.parquet", rows)


def split(rows: Sequence[Row], num_rows: int, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and `num_rows` drawn ones that share no text with any other row."""
    times = Counter(text for row in rows for text in {row.query, *row.positives})
    alone = [i for i, row in enumerate(rows) if all(times[t] == 1 for t in (row.query, *row.positives))]
    drawn = set(np.random.default_rng(seed).choice(alone, num_rows, replace=False).tolist())
    return [row for i, row in enumerate(rows) if i not in drawn], [rows[i] for i in sorted(drawn)]


# --- runs ---------------------------------------------------------------------------------------------------


def make_run(size_name: str, folder: str, arms: Sequence[Arm], seed: int, reference: bool = True) -> Run:
    """The run that makes these arms with one seed; a soup brings the runs that it is made of.

    `reference` exports the stage-1 model too. Stages that another seed has too are the same ones.
    """
    size, place = SIZES[size_name], Path(folder) / size_name
    run = resolved(load_run(QUICKSTART))
    given = {stage["name"]: stage for stage in run["stages"]}
    for name in MINED:
        run["sources"][name]["rows"] = str(place / "rows" / f"{name}.parquet")
    stages = [*shared(size, given), *([exported(REFERENCE, "pretrain")] if reference else [])]
    trained = RUNS if any(arm.method for arm in arms) else arms
    stages += [train(size, arm, given["finetune_a"], seed) for arm in trained]
    stages += [soup(size, arm, place / "validation", seed) for arm in arms if arm.method]
    stages += [exported(export_name(arm.name, seed), stage_name(arm, seed)) for arm in arms]
    run["base"]["keep_first_layers"] = size.layers
    return Run.model_validate(run | {"name": size_name, "folder": folder, "stages": stages})


def shared(size: Size, given: Mapping[str, Section]) -> list[Section]:
    """The quickstart's stage 1 and the negatives mined with it, the same for every run."""
    mine = {"max_rows": size.mined_rows, "corpus_size": size.corpus, "top_k": min(60, size.corpus)}
    return [
        given["pretrain"] | {"steps": size.pretrain_steps},
        given["mined"] | mine,
        given["negatives"],
    ]


def train(size: Size, arm: Arm, given: Section, seed: int) -> Section:
    """The quickstart's stage 2 on an arm's sources."""
    sizes = {"steps": size.steps, "batch_size": size.batch_size}
    return given | sizes | {"name": stage_name(arm, seed), "sources": list(arm.sources), "seed": seed}


def soup(size: Size, arm: Arm, validation: Path, seed: int) -> Section:
    """A soup of all runs of a seed."""
    method: Section = {"kind": arm.method}
    if arm.method == "greedy":
        method |= {"data": [str(validation)], "max_tokens": size.validation_tokens}
    names = [stage_name(run, seed) for run in RUNS]
    return {"name": stage_name(arm, seed), "kind": "soup", "from": names, "method": method}


def stage_name(arm: Arm, seed: int) -> str:
    """Name of the stage that makes an arm's weights."""
    return f"{'soup' if arm.method else 'train'}_{arm.name}_{seed}"


def exported(name: str, start: str) -> Section:
    """An export stage."""
    return {"name": name, "kind": "export", "from": start, "num_parity_texts": 8, "max_tokens": 256}
