"""The page of a run: facts from what lies on disk, the same page again later, and what it says is missing."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reported_runs import evaluated, reported_run, results, steps, write_run, write_stage
from test_evaluation_report import search_task, topic_task
from word_embedder import WordEmbedder

from embedtrain.artifacts import hash_folder, is_done, mark_done, read_json, write_json
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.evaluation.measure import Remembering
from embedtrain.evaluation.neighbours import matching
from embedtrain.evaluation.report import report_json
from embedtrain.evaluation.results import Figure
from embedtrain.evaluation.tasks import Clustering, Reranking, Similarity
from embedtrain.show.facts import StageFacts
from embedtrain.show.saved import load_sections
from embedtrain.stages.context import StageContext
from embedtrain.stages.measuring import Found
from embedtrain.stages.run_report.card import write_measured_card
from embedtrain.stages.run_report.curves import points_of
from embedtrain.stages.run_report.drawing import run_page
from embedtrain.stages.run_report.facts import drawn_rows, made_by, run_facts
from embedtrain.stages.run_report.page import (
    EVALUATED,
    NO_EVALUATION,
    OTHER_VERSION,
    rebuild_page,
    saved_sections,
)
from embedtrain.stages.run_report.scores import contrast, judge, ordered

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = [
    "The run", "Held-out tasks", "In-domain tasks", "Scores of right and wrong texts", "Nearest neighbours",
    "Map of the embeddings", "Data", "Training", "Cost", "How it was measured",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Path], str]:
    run = reported_run(tmp_path_factory.mktemp("run"))
    folders = write_run(run)
    return run, folders, evaluated(run, folders)


def test_the_page_holds_every_part_in_order(finished: tuple) -> None:
    _, _, page = finished
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == HEADINGS
    for text in (
        "<title>Run r</title>",
        "pip:some-base==1.0, first 4 layers",
        "reads weak, hard",
        "CC0 1.0",
        "L = 1 · infonce + 0.5 · spread",
        "weak: 40 steps, loss 1.56 → 0.08",
        '<th scope="row">all</th>',
        "10:30 min",  # seven stages of 90 s
        "2,100",  # tokens of both trainings
        "perc pos",
        "<b>62.5</b><small>58.5–65.5</small>",
        "python 3.",
    ):
        assert text in page, text
    assert not re.search(r"""(src|href)=["']?(https?:|//)|@import|url\((?!#)""", page)
    assert "<script" not in page


def test_the_page_can_be_made_again_without_a_model(finished: tuple, tmp_path: Path) -> None:
    run, folders, page = finished
    assert rebuild_page(run, folders, {}, tmp_path / "again.html") == []
    assert (tmp_path / "again.html").read_text() == page
    saved = read_json(folders["report"] / EVALUATED)
    assert load_sections(saved | {"format": 0}) is None


def test_facts_are_those_of_the_folders(finished: tuple) -> None:
    run, folders, _ = finished
    facts = run_facts(run, folders)
    named = {stage.name: stage for stage in facts.stages}
    assert (facts.seconds, facts.tokens, facts.missing, facts.trained_tokens) == (630.0, 2100, [], (64, 256))
    assert named["weak"].reads == ("base", "training rows")
    assert named["tuned"].reads == ("weak", "hard")
    assert named["report"].reads == ("before", "final")
    assert (named["tuned"].seed, named["tuned"].steps) == (8, 2)
    assert named["hard"].rows["asked"] == {"dropped": 1}
    asked, titles = named["weak"].shares
    assert (asked.num_rows, asked.drawn_rows, asked.drawn) == (40, 120, 0.75)
    assert (asked.planned, titles.planned) == (0.75, 0.25)
    assert [share.num_rows for share in named["tuned"].shares] == [15, 15]  # of those that were selected
    assert [(s.licence, s.mteb_overlap) for s in facts.sources] == 2 * [("CC0 1.0", "none known")]
    assert named["weak"].peak_bytes > 10**7
    assert named["weak"].machine.cores >= 1
    assert {"python", "torch"} <= set(named["weak"].versions)
    assert [(f.model, f.task, f.kind, f.in_domain) for f in facts.figures] == [
        ("before", "faq", "Retrieval", False),
        ("final", "faq", "Retrieval", False),
        ("final", "titles", "Retrieval", True),
    ]


def test_facts_of_a_model_are_those_of_its_own_stages(finished: tuple) -> None:
    run, folders, _ = finished
    assert [s.name for s in run_facts(run, folders, until="final").stages] == [
        "weak",
        "mined",
        "hard",
        "tuned",
        "final",
    ]
    untrained = run_facts(run, folders, until="before")
    assert ([s.name for s in untrained.stages], untrained.sources, untrained.trained_tokens) == (
        ["before"],
        (),
        None,
    )


def test_folders_are_found_through_what_stages_read(finished: tuple) -> None:
    run, folders, _ = finished
    root = Path(run.folder) / run.name
    inputs = {name: folders[name] for name in ("before", "final")}
    assert made_by(run, root, inputs) == folders  # the report itself is the newest of its name


def test_what_is_missing_is_named_and_left_out(tmp_path: Path) -> None:
    run = reported_run(tmp_path)
    folders = write_run(run, until="hard")
    partial = write_stage(run, "tuned", {}, folders, done=False)
    (partial / "curve.jsonl").write_text('{"step": 1, "source": "asked", "loss": 2.0, "lr": 0.1}\n{"step": 2')
    shutil.rmtree(tmp_path / "titles")  # rows that nobody kept
    lacks = rebuild_page(run, folders, {"final": ("stale", "stage tuned changed")}, tmp_path / "page.html")
    assert lacks == [NO_EVALUATION, "not done: tuned, before, final, report"]
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == ["The run", "Data", "Training", "Cost"]
    assert "tuned: 1 steps, loss 2.00 → 2.00, unfinished" in page
    assert "(stage tuned changed)" in page
    assert "Not done: tuned, before, final, report." in page
    facts = run_facts(run, folders)
    assert [s.num_rows for s in facts.sources] == [40, None]
    assert facts.figures == ()


def test_an_evaluation_of_another_version_is_left_out(tmp_path: Path) -> None:
    run = reported_run(tmp_path)
    folders = write_run(run)
    assert saved_sections(run, folders) == ([], [OTHER_VERSION])  # it kept nothing
    write_json(folders["report"] / EVALUATED, {"format": 99, "sections": []})
    assert saved_sections(run, folders) == ([], [OTHER_VERSION])


def test_rows_of_mixed_batches_are_counted(finished: tuple) -> None:
    run, *_ = finished
    stage = find_stage(run, "weak")
    assert isinstance(stage, Train)
    mixed = [
        {"source": "several", "rows/asked": 3, "rows/titles": 1},
        {"source": "several", "rows/titles": 4},
    ]
    assert drawn_rows(run, stage, [*mixed, *steps("asked", 1, 2)]) == {"asked": 3 + 8, "titles": 5}


def test_a_long_curve_becomes_few_points() -> None:
    xs, ys = points_of(steps("asked", 1, 1000), "lr")
    assert len(xs) == 334
    assert xs[:2] == [2.0, 5.0]
    assert ys[0] == pytest.approx(1e-3 * (1 + 1 / 2 + 1 / 3) / 3)
    assert points_of(steps("asked", 1, 9), "absent") == ([], [])


# scores


def test_auc_is_that_of_loops() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 5, 7) / 5, rng.integers(0, 5, 11) / 5  # with ties
    slow = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert ordered(positives, negatives) == pytest.approx(np.mean(slow))


def test_wrong_texts_are_wrong_and_positives_right() -> None:
    for task in (search_task(), topic_task()):
        pairs, judged = matching(task), judge(task, 1)
        assert sorted(judged.queries) == list(range(6))
        for row, positives, negatives in zip(judged.queries, judged.positives, judged.negatives, strict=True):
            assert positives
            assert all(pairs.is_right(row, n) and not (pairs.same_texts and n == row) for n in positives)
            assert negatives
            assert not any(pairs.is_right(row, n) for n in negatives)


def test_a_query_with_a_list_of_its_own_is_judged_by_it() -> None:
    task = search_task()
    lists = {name: (f"d{n}", f"d{(n + 1) % 6}") for n, name in enumerate(task.query_ids)}
    own = Reranking(
        task.name, task.query_ids, task.queries, task.document_ids, task.documents, lists, task.judged
    )
    judged = judge(own, 0)
    found = dict(zip(judged.queries, judged.negatives, strict=True))
    assert found == {n: ((n + 1) % 6,) for n in range(6)}
    model = WordEmbedder(seed=3)
    one = contrast(Remembering("m", lambda: model), own, matching(own), judged)
    row = judged.queries[0]
    expected = (
        model.encode([own.queries[row]], side="query")
        @ model.encode([own.documents[(row + 1) % 6]], side="document").T
    )
    assert one.negatives[0][0] == pytest.approx(float(expected[0, 0]), abs=1e-6)


def test_scored_pairs_and_lone_labels_have_no_wrong_texts() -> None:
    assert judge(Similarity("sts", ("a", "b"), ("c", "d"), scores=(1.0, 2.0)), 0) is None
    assert judge(Clustering("one", ("a", "b"), ("x", "x")), 0) is None


# the command


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`embedtrain report`, and whether it loaded torch."""
    code = "import sys; from embedtrain.cli import main; main(); "
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    return subprocess.run(
        [sys.executable, "-c", code, "report", *words], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


def test_the_command_needs_no_finished_stage_and_no_torch(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    done = command("configs/tiny.yaml", "--set", f"folder={folder}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == NO_EVALUATION
    assert lines[1].startswith("not done: pretrain, mined, ")
    assert lines[2:] == [str(folder / "tiny/report.html"), "False"]
    assert "6 steps of 16 rows" in (folder / "tiny/report.html").read_text()
    assert not any(is_done(path) for path in folder.rglob("*") if path.is_dir())


def test_the_command_refuses_a_card_of_nothing(tmp_path: Path) -> None:
    done = command("configs/tiny.yaml", "--set", f"folder={tmp_path}", "--card", str(tmp_path / "card.md"))
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == "embedtrain: --card: stage 'final' (export) is not done, so there is no card yet"
    )


def test_reporting_changes_no_stage(finished: tuple, tmp_path: Path) -> None:
    run, folders, _ = finished
    before = {name: hash_folder(folder) for name, folder in folders.items()}
    rebuild_page(run, folders, {}, tmp_path / "page.html")
    assert {name: hash_folder(folder) for name, folder in folders.items()} == before


def test_a_stage_without_records_has_no_figures() -> None:
    facts = StageFacts("a", "train")
    assert (facts.seconds, facts.tokens, facts.machine, facts.peak_bytes) == (None, None, None, None)


def test_figures_without_an_interval_and_a_page_without_a_task(tmp_path: Path) -> None:
    """Tasks that mteb alone measures: tables, and no vectors to look at."""
    run = reported_run(tmp_path)
    folders = write_run(run)
    bare = [replace(one, metrics={"ndcg@10": Figure(12.3)}) for one in results()]
    write_json(folders["report"] / "report.json", report_json(bare))
    context = StageContext(run, find_stage(run, "report"), Machine(), folders["report"], {})
    (folders["report"] / "done.json").unlink()  # it is not written yet when the stage writes its page
    page = run_page(context, Found(bare, [], {}), (), [], None)
    assert "Not done" not in page
    assert "Not counted: report, which wrote this page." in page
    assert "Nearest neighbours" not in page
    assert "12.3" in page
    mark_done(folders["report"], {"stage": "report", "seconds": 1.0, "facts": {}})
    write_measured_card(run, folders, tmp_path / "card.md")
    assert "| faq | held-out | nDCG@10 | 12.3 | — | 20 of 99 queries |" in (tmp_path / "card.md").read_text()
