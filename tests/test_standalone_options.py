"""What people write after --rule, --ranks, --model and --teacher."""

import re
from pathlib import Path

import pytest

from embedtrain.config.errors import UserError
from embedtrain.standalone.options import (
    RULES,
    choice_section,
    model_sections,
    rank_window,
    reads_scores,
    rule_sections,
    teacher_sections,
)


def told(call, *given) -> str:
    with pytest.raises(UserError) as error:
        call(*given)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("perc_pos", {"kind": "perc_pos"}),
        ("perc_pos=0.9", {"kind": "perc_pos", "fraction": 0.9}),
        ("margin_pos=0.1", {"kind": "margin_pos", "margin": 0.1}),
        ("absolute=7e-1", {"kind": "absolute", "ceiling": 0.7}),
        ("adaptive", {"kind": "adaptive"}),
        (
            "adaptive=0.95,floor=0.2,ceiling_quantile=0.5",
            {"kind": "adaptive", "fraction": 0.95, "floor": 0.2, "ceiling_quantile": 0.5},
        ),
        ("adaptive,floor=0.2", {"kind": "adaptive", "floor": 0.2}),
        ("shift=10", {"kind": "shift", "ranks": 10}),
        ("same_label", {"kind": "same_label"}),
        ("perc_pos=0.9,judge=bm25", {"kind": "perc_pos", "fraction": 0.9, "judge": "bm25"}),
        ("teacher_ceiling=2", {"kind": "teacher_ceiling", "ceiling": 2, "judge": "model"}),
        (
            "teacher_ceiling=2,judge=bm25,promote=true",
            {"kind": "teacher_ceiling", "ceiling": 2, "judge": "bm25", "promote": True},
        ),
    ],
)
def test_a_rule_is_its_kind_and_its_values(text: str, section: dict) -> None:
    assert rule_sections([text], "model") == [section]


def test_rules_stand_in_the_order_given_and_one_stands_where_none_is() -> None:
    assert [rule["kind"] for rule in rule_sections(["shift=5", "perc_pos"], "m")] == ["shift", "perc_pos"]
    assert rule_sections([], "m") == [{"kind": "perc_pos"}]
    assert rule_sections(["none"], "m") == []


def test_every_rule_of_a_run_file_can_be_given() -> None:
    from typing import get_args

    from embedtrain.config.rules import AnyRule

    assert {schema for schema, _ in RULES.values()} == set(get_args(get_args(AnyRule)[0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("perc_po=0.9", "--rule perc_po=0.9: no such rule; did you mean 'perc_pos'?"),
        ("perc_pos=2", "--rule perc_pos=2: fraction: found 2, expected at most 1"),
        ("perc_pos=much", "--rule perc_pos=much: fraction: found 'much' (text), expected a number"),
        ("shift=1.5", "--rule shift=1.5: ranks: found 1.5 (number), expected a whole number"),
        ("same_label=1", "--rule same_label=1: same_label takes no value"),
        ("adaptive=0.95,0.2", "--rule adaptive=0.95,0.2: found '0.2', expected key=value"),
        ("adaptive,flor=0.2", "--rule adaptive,flor=0.2: flor: unknown key; did you mean 'floor'?"),
        ("adaptive,floor=0.5,ceiling=0.2", "floor 0.5 is above ceiling 0.2"),
        ("perc_pos=[", "--rule perc_pos=[: cannot read '['"),
    ],
)
def test_a_faulty_rule_is_told(text: str, message: str) -> None:
    assert message in told(rule_sections, [text], "model")


def test_no_rule_stands_alone() -> None:
    assert "stands alone" in told(rule_sections, ["none", "shift=3"], "model")


def test_rules_on_scores_are_known() -> None:
    assert reads_scores(rule_sections(["shift=3", "margin_pos"], "m"))
    assert not reads_scores(rule_sections(["shift=3", "same_label"], "m"))
    assert reads_scores(rule_sections(["teacher_ceiling=1"], "m"))


def test_ranks() -> None:
    assert rank_window(None, 30) == (1, 30)
    assert rank_window("50-100", 30) == (50, 100)
    for wrong in ("50", "100-50", "0-5", "a-b", "-5", "5-"):
        assert f"--ranks {wrong}: expected two ranks from 1 on" in told(rank_window, wrong, 30)


def test_a_choice() -> None:
    assert choice_section(None) == {"kind": "top"}
    assert choice_section(20) == {"kind": "sample", "from_top": 20}


def test_retrievers(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert model_sections([folder, "owner/name"], True, 128) == [
        {"kind": "model", "name": "model", "model": folder, "max_tokens": 128},
        {"kind": "model", "name": "model_2", "model": "owner/name", "max_tokens": 128},
        {"kind": "bm25"},
    ]
    assert told(model_sections, [], False, None).startswith("no retriever; give --model")
    assert re.match(
        r"--model: '.*/gone' is no folder; expected", told(model_sections, [f"{folder}/gone"], False, None)
    )


def test_teachers(tmp_path: Path) -> None:
    weights = tmp_path / "small.gguf"
    weights.touch()
    given = ["cross_encoder:owner/name", f"yes_no:{weights}", "bm25", "cross_encoder:pip:one==1.0"]
    assert teacher_sections(given, None) == [
        {"kind": "cross_encoder", "model": "owner/name", "name": "cross_encoder"},
        {"kind": "yes_no", "model": str(weights), "name": "yes_no"},
        {"kind": "bm25", "name": "bm25"},
        {"kind": "cross_encoder", "model": "pip:one==1.0", "name": "cross_encoder_2"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross_encode:a/b", "no such kind; did you mean 'cross_encoder'?"),
        ("cross_encoder", "needs a model"),
        ("bm25:", "no such kind"),
        ("cross_encoder:nowhere/at/all", "is no folder"),
    ],
)
def test_a_faulty_teacher_is_told(text: str, message: str) -> None:
    assert message in told(teacher_sections, [text], None)


def test_no_teacher_is_told() -> None:
    assert told(teacher_sections, [], None).startswith("no teacher; give --teacher")
