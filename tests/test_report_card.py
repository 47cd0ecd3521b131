"""The card with measured figures: valid for a model hub, and a copy; and the diagram of a run."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from reported_runs import README, reported_run, write_run

from embedtrain.artifacts import hash_folder
from embedtrain.config.errors import UserError
from embedtrain.show.diagram import Box, Diagram
from embedtrain.show.page import Section, render_page
from embedtrain.stages.run_report.card import write_measured_card


def test_the_measured_card_is_a_valid_copy_with_figures(tmp_path: Path) -> None:
    run = reported_run(tmp_path)
    folders = write_run(run)
    before = hash_folder(folders["final"])
    write_measured_card(run, folders, tmp_path / "card.md")
    assert hash_folder(folders["final"]) == before, "the export is known by its hash"
    card = ModelCard.load(tmp_path / "card.md")
    assert card.data.tags == ["embedtrain"]
    faq, titles = card.data.eval_results
    assert (faq.task_type, faq.dataset_type, faq.dataset_name) == (
        "Retrieval",
        "faq",
        "faq (20 of 99 queries)",
    )
    assert (faq.metric_type, faq.metric_name, faq.metric_value) == ("ndcg_at_10", "nDCG@10", 62.5)
    assert (titles.dataset_type, titles.metric_value) == ("titles", 80.0)
    text = card.text
    assert "| faq | held-out | nDCG@10 | 62.5 | 58.5–65.5 | 20 of 99 queries |" in text
    assert "| titles | in-domain |" in text
    assert "- 7:30 min for all stages that this model comes from\n- 2,100 tokens of training" in text
    assert "- machine: " in text
    assert "torch" in text
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads == ["# r model", "## Figures", "## Cost", "## Limits"]
    assert text.endswith("- short\n"), README


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ("tuned", "--card: stage 'final' (export) is not done, so there is no card yet"),
        ("final", "--card: no finished evaluate stage of the run measures 'final'"),
    ],
)
def test_a_card_without_figures_is_refused(tmp_path: Path, until: str, text: str) -> None:
    run = reported_run(tmp_path)
    folders = write_run(run, until)
    with pytest.raises(UserError) as caught:
        write_measured_card(run, folders, tmp_path / "card.md")
    assert str(caught.value) == text
    assert not (tmp_path / "card.md").exists()


boxes = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        *(st.sets(st.integers(0, max(0, n - 1)), max_size=4 if n else 0) for n in range(count))
    )
)


@settings(max_examples=100, deadline=None)
@given(boxes)
def test_lanes_lead_from_every_box_to_all_its_readers(reads: tuple[set[int], ...]) -> None:
    diagram = Diagram([Box(str(n), reads=tuple(map(str, sorted(names)))) for n, names in enumerate(reads)])
    rows = diagram.rows
    for number, (row, names) in enumerate(zip(rows, reads, strict=True)):
        places = [lane.place for lane in row.lanes]
        assert len(set(places)) == len(places), "two lanes in one place"
        assert places == sorted(places, reverse=True)
        assert sum(lane.read for lane in row.lanes) == len(names)
        assert all(lane.above for lane in row.lanes if lane.read)
        is_read = any(number in later for later in reads)
        assert sum(lane.starts for lane in row.lanes) == is_read
        if number + 1 < len(rows):  # what leads on below arrives from above, in its place and colour
            below = {(lane.place, lane.color) for lane in row.lanes if lane.below}
            assert below == {(lane.place, lane.color) for lane in rows[number + 1].lanes if lane.above}
        else:
            assert not any(lane.below for lane in row.lanes)
    assert max((lane.place for row in rows for lane in row.lanes), default=-1) == diagram.num_lanes - 1


def test_a_lane_is_followed_to_the_right_box() -> None:
    """Down each lane from where it starts: the boxes that read it are those that name the first."""
    names = {"a": (), "b": ("a",), "c": ("a",), "d": ("b",), "e": ("a", "c")}
    rows = Diagram([Box(name, reads=reads) for name, reads in names.items()]).rows
    for number, row in enumerate(rows):
        for start in (lane for lane in row.lanes if lane.starts):
            readers, place = set(), start.place
            for later in rows[number + 1 :]:
                lane = next(one for one in later.lanes if one.place == place)
                readers |= {later.box.name} if lane.read else set()
                if not lane.below:
                    break
            assert readers == {name for name, reads in names.items() if row.box.name in reads}


def test_a_box_reads_only_what_stands_above_it() -> None:
    with pytest.raises(ValueError, match="box 'a' reads 'b', which does not stand above it"):
        Diagram([Box("a", reads=("b",)), Box("b")])


def test_a_diagram_is_drawn_and_escaped() -> None:
    boxes = [Box("<a>", "train", "5 < 6", time="3 s"), Box("b", state="wait", reads=("<a>",))]
    page = render_page("t", [Section("s", [Diagram(boxes, "read & made")])])
    assert "<b>&lt;a&gt;</b>" in page
    assert "5 &lt; 6" in page
    assert "reads &lt;a&gt;" in page
    assert page.count('<i class="read">') == page.count('<i class="start">') == 1
    assert '<div class="box wait">' in page
