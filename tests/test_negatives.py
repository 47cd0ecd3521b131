"""The rules of a select stage against the same rules in loops, over random sources with duplicates."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged_cases import NAMES, make_case
from slow_select import Case, slow_choice, slow_rank, slow_reasons

from embedtrain.config.mining import Select
from embedtrain.config.rules import (
    AbsoluteScore,
    AdaptiveMargin,
    MarginToPositive,
    PercentOfPositive,
    Shift,
)
from embedtrain.data.rows import Row, text_key
from embedtrain.data.store import store_rows
from embedtrain.mining import negatives
from embedtrain.mining.choice import first_different, row_draws
from embedtrain.mining.judged import Judged, count, gather, judge
from embedtrain.mining.limits import limit
from embedtrain.mining.lists import over_equal_texts
from embedtrain.mining.negatives import Reason, reason_names
from embedtrain.mining.tables import Column, Mined

QUIET = (HealthCheck.function_scoped_fixture,)


def select_stage(**changes: object) -> Select:
    return Select(**({"name": "s", "kind": "select", "candidates": "m", "rules": ()} | changes))


def judged_case(case: Case, columns: dict[str, Column], select: Select, folder: Path) -> Judged:
    rows = store_rows(case.rows, folder)
    keys = np.array([text_key(text) for text in case.documents], np.int64)
    name = select.judge or next(iter(columns))
    candidates = gather("s", rows, case.mined, keys, columns, select, name, symmetric=case.symmetric)
    chosen = rows.take(case.mined.query_row_Q)
    return judge(candidates, select, 7, rows=chosen, mined=case.mined, texts=case.documents)


judges = st.sampled_from([None, *NAMES])
sure = st.integers(-2, 4).map(lambda number: number / 4)
share = st.sampled_from([0.5, 0.75, 1.0])
rule = st.one_of(
    st.builds(lambda f, j: {"kind": "perc_pos", "fraction": f, "judge": j}, share, judges),
    st.builds(lambda m, j: {"kind": "margin_pos", "margin": m, "judge": j}, st.just(0.25), judges),
    st.builds(lambda c, j: {"kind": "absolute", "ceiling": c, "judge": j}, sure, judges),
    st.builds(
        lambda f, bounds, q, j: {
            "kind": "adaptive",
            "fraction": f,
            "floor": bounds[0],
            "ceiling": bounds[1],
            "ceiling_quantile": q,
            "judge": j,
        },
        share,
        st.sampled_from([(None, None), (-0.25, None), (None, 0.5), (0.25, 0.5), (0.75, 0.75)]),
        st.sampled_from([None, 0.25, 0.5]),
        judges,
    ),
    st.builds(
        lambda c, j, p: {"kind": "teacher_ceiling", "ceiling": c, "judge": j, "promote": p},
        sure,
        st.sampled_from(NAMES),
        st.booleans(),
    ),
    st.builds(lambda n: {"kind": "shift", "ranks": n}, st.integers(1, 3)),
    st.just({"kind": "same_label"}),
)


stages = st.fixed_dictionaries(
    {
        "rules": st.lists(rule, max_size=3).map(tuple),
        "judge": judges,
        "soft_labels": judges,
        "num_negatives": st.integers(1, 4),
        "require_positive_in_top": st.sampled_from([None, None, 2, 5]),
        "choice": st.sampled_from(
            [{"kind": "top"}, {"kind": "sample", "from_top": 4}]
            + [{"kind": "sample", "from_top": 6, "temperature": heat} for heat in (0.05, 2.0)]
        ),
    }
)
windows = st.sampled_from([(1, 100), (1, 3), (2, 4), (3, 3)])


@settings(max_examples=250, deadline=None, suppress_health_check=QUIET)
@given(seed=st.integers(0, 2**32), chosen=stages, window=windows, data=st.data())
def test_equals_the_rules_in_loops(tmp_path_factory, small_blocks, seed, chosen, window, data) -> None:
    case, columns = make_case(seed)
    if not chosen["soft_labels"]:
        chosen = chosen | {"fill": data.draw(st.sampled_from(["nothing", "random"]))}
    select = select_stage(**chosen, first_rank=window[0], last_rank=window[1])
    judged = judged_case(case, columns, select, tmp_path_factory.mktemp("store") / "rows")
    name = select.judge or "one"
    answers = slow_reasons(case, columns, select, name)
    noise = row_draws(7, "s", "choice")
    for line, answer in enumerate(answers):
        noise_K = noise(int(case.mined.query_row_Q[line])).gumbel(size=case.mined.ids_QK.shape[1])
        slow_choice(case, line, answer, select, columns[name].score_QK[line], noise_K)
        codes = {k: int(code) for k, code in enumerate(judged.reason_QK[line]) if code != Reason.ABSENT}
        told = {
            k: code - len(Reason) if code >= len(Reason) else judged.reasons[code]
            for k, code in codes.items()
        }
        assert told == answer
        assert judged.positive_rank_Q[line] == slow_rank(case, line)
        assert judged.known_QK[line].tolist() == [
            k in codes
            and case.documents[case.mined.ids_QK[line, k]].strip()
            in case.known(case.row(line).query.strip()) | {case.row(line).query.strip()}
            for k in range(case.mined.ids_QK.shape[1])
        ]
    check_texts(case, judged, select, answers)
    check_counts(judged, select, answers)


def named(judged: Judged, code: int) -> str | int:
    """The name of a reason, or the number of a rule."""
    return code - len(Reason) if code >= len(Reason) else judged.reasons[code]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates at a time: sources of several blocks."""
    monkeypatch.setattr(negatives, "BLOCK", 8)


def check_texts(case: Case, judged: Judged, select: Select, answers: list[dict]) -> None:
    """No known positive, query, equal text or refused candidate is a negative, random ones included."""
    promoted = {
        (case.row(line).query.strip(), text)
        for line, answer in enumerate(answers)
        for place, text, _ in case.entries(line)
        if answer[place] == "promoted"
    }
    for line, answer in enumerate(answers):
        query, entries = case.row(line).query.strip(), case.entries(line)
        kept = [case.documents[case.mined.ids_QK[line, k]].strip() for k in judged.kept(line)]
        filled = [case.documents[id].strip() for id in judged.filled(line)]
        banned = case.known(query) | {query} | {t for q, t in promoted if q == query}
        banned |= {q for q, t in promoted if t == query} if case.symmetric else set()
        refused = {text for k, text, _ in entries if answer[k] not in ("kept", "not_needed", "same_text")}
        assert not {*kept, *filled} & (banned | refused)
        assert len({*kept, *filled}) == len(kept) + len(filled)
        assert not set(filled) & {text for _, text, _ in entries}
        if any(rule.kind == "same_label" for rule in select.rules):
            assert not any(case.labels(query) & case.labels(text) for text in (*kept, *filled))
            banned |= {
                text for text in map(str.strip, case.documents) if case.labels(query) & case.labels(text)
            }
        free = {text.strip() for text in case.documents} - banned - {text for _, text, _ in entries}
        wanted = select.num_negatives - len(kept) if select.fill == "random" else 0
        assert len(filled) == (min(wanted, len(free)) if judged.row_stays_Q[line] else 0)
        gained = [case.documents[case.mined.ids_QK[line, k]].strip() for k in judged.promoted(line)]
        assert len(set(gained)) == len(gained)
        assert set(gained) == {text for k, text, _ in entries if answer[k] == "promoted"}


def check_counts(judged: Judged, select: Select, answers: list[dict]) -> None:
    counts, names = count(judged, select), reason_names(select)
    found = Counter(
        names[len(Reason) + reason] if isinstance(reason, int) else reason
        for answer in answers
        for reason in answer.values()
    )
    assert {name: number for name, number in counts["candidates"].items() if number} == found
    rows = {name: number for name, number in counts["rows"].items() if name != "filled_at_random"}
    assert sum(rows.values()) == len(answers)
    numbers = [len(judged.kept(line)) + len(judged.filled(line)) for line in range(len(answers))]
    stay = [number for number, stays in zip(numbers, judged.row_stays_Q, strict=True) if stays]
    assert rows["with_all_negatives"] == stay.count(select.num_negatives)
    assert rows["without_negatives"] == stay.count(0)
    assert rows["dropped"] == len(answers) - len(stay)


@pytest.mark.parametrize("positive", [1.0, 0.6, 0.1, 0.0, -0.1, -0.6, -1.0])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95, 1.0])
def test_perc_pos_never_lets_a_candidate_pass_its_positive(positive: float, fraction: float) -> None:
    rule = PercentOfPositive(kind="perc_pos", fraction=fraction)
    (bound,) = limit(rule, np.array([positive]), np.array([positive]))
    assert bound <= positive
    if positive > 0:
        assert bound == pytest.approx(fraction * positive)
    finer = np.linspace(-1, 1, 2001)
    assert (np.diff(limit(rule, finer, finer)) > 0).all()  # a better positive never means a lower bound


def test_the_published_constants_are_the_defaults() -> None:
    assert PercentOfPositive(kind="perc_pos").fraction == 0.95
    assert AdaptiveMargin(kind="adaptive").fraction == 0.95
    assert MarginToPositive(kind="margin_pos").margin == 0.05
    assert AbsoluteScore(kind="absolute").ceiling == 0.7
    assert Shift(kind="shift").ranks == 10
    stage = Select(name="s", kind="select", candidates="m")
    assert (stage.num_negatives, [rule.kind for rule in stage.rules]) == (7, ["perc_pos"])


def test_a_floor_above_a_ceiling_of_the_source_gives_way() -> None:
    rule = AdaptiveMargin(kind="adaptive", fraction=1.0, floor=0.5, ceiling_quantile=0.5)
    bounds = limit(rule, np.array([0.1, 0.9]), np.array([0.1, 0.2, 0.9]))
    assert bounds.tolist() == [0.2, 0.2]


def test_rules_of_one_kind_are_told_apart() -> None:
    perc, shift = {"kind": "perc_pos"}, {"kind": "shift"}
    select = select_stage(rules=(perc, perc | {"judge": "bm25"}, perc | {"judge": "bm25"}, shift, shift))
    names = reason_names(select)[len(Reason) :]
    assert names == ("perc_pos", "perc_pos(bm25)", "perc_pos(bm25)#2", "shift", "shift#2")
    assert reason_names(select_stage(rules=(perc | {"judge": "bm25"},)))[-1] == "perc_pos"


def test_a_rule_without_a_limit_is_an_error() -> None:
    with pytest.raises(TypeError, match="no limit is known for the rule object"):
        limit(object(), np.zeros(1), np.zeros(1))


def one_row_each(num_rows: int, scores: list[float], ids: list[int]) -> tuple[Case, dict[str, Column]]:
    """Many rows with the same candidates, for counting what is drawn."""
    rows = [Row(f"q{number}", ("p",)) for number in range(num_rows)]
    shape = (num_rows, len(ids))
    column = Column(np.broadcast_to(np.float32(scores), shape).copy(), [np.ones(1, np.float32)] * num_rows)
    ranks = np.broadcast_to(np.arange(1, len(ids) + 1, dtype=np.int32), shape)
    mined = Mined(np.arange(num_rows), np.broadcast_to(ids, shape).copy(), ranks, {"one": column})
    return Case(rows, [f"d{number}" for number in range(12)], mined), {"one": column}


def test_draws_follow_the_softmax_and_count_duplicates_as_often_as_listed(tmp_path: Path) -> None:
    """Two of four texts, one of them listed twice, without replacement: as counted over all orders."""
    num_rows, ids, scores = 6000, [0, 1, 0, 2, 3], [0.5, 0.25, 0.5, 0.0, -0.5]
    case, columns = one_row_each(num_rows, scores, ids)
    select = select_stage(num_negatives=2, choice={"kind": "sample", "from_top": 5, "temperature": 0.5})
    judged = judged_case(case, columns, select, tmp_path / "rows")
    pairs = Counter(
        frozenset(case.mined.ids_QK[line, judged.kept(line)].tolist()) for line in range(num_rows)
    )
    weight = {0: 2 * np.exp(1.0), 1: np.exp(0.5), 2: 1.0, 3: np.exp(-1.0)}
    total = sum(weight.values())
    for first in weight:
        for second in range(first):
            chance = sum(
                weight[a] / total * weight[b] / (total - weight[a])
                for a, b in ((first, second), (second, first))
            )
            deviation = (chance * (1 - chance) / num_rows) ** 0.5
            assert abs(pairs[frozenset((first, second))] / num_rows - chance) < 4.5 * deviation
    assert sum(pairs.values()) == num_rows
    assert {len(pair) for pair in pairs} == {2}


def test_random_documents_are_drawn_evenly(tmp_path: Path) -> None:
    """Nine of twelve documents are free; each is as likely in a row, and rows differ."""
    num_rows = 4000
    case, columns = one_row_each(num_rows, [0.1, 0.2, 0.3], [4, 0, 9])
    select = select_stage(num_negatives=4, fill="random", rules=({"kind": "absolute", "ceiling": 0.15},))
    judged = judged_case(case, columns, select, tmp_path / "rows")
    assert judged.kept_QK.sum(axis=1).tolist() == [1] * num_rows
    assert judged.filled_QF[:, :3].min() >= 0
    counts = Counter(judged.filled_QF[:, :3].ravel().tolist())
    assert set(counts) == set(range(12)) - {4, 0, 9}
    for number in counts.values():
        assert abs(number / num_rows - 1 / 3) < 4.5 * (2 / 9 / num_rows) ** 0.5
    assert (judged.filled_QF[:, 3] == -1).all()


@pytest.mark.parametrize("choice", [{"kind": "sample"}, {"kind": "top"}])
def test_a_rows_draws_depend_on_its_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: dict
) -> None:
    """Half the rows mined, and cut into other blocks: the same negatives for each."""
    case, columns = one_row_each(40, [0.1] * 8, list(range(8)))
    select = select_stage(num_negatives=3, choice=choice, fill="random")
    whole = judged_case(case, columns, select, tmp_path / "whole")
    odd = np.arange(1, 40, 2)
    column = Column(columns["one"].score_QK[odd], [columns["one"].positive_scores[n] for n in odd])
    mined = Mined(odd, case.mined.ids_QK[odd], case.mined.ranks_QK[odd], {"one": column})
    monkeypatch.setattr(negatives, "BLOCK", 24)
    half = judged_case(Case(case.rows, case.documents, mined), {"one": column}, select, tmp_path / "half")
    assert np.array_equal(whole.reason_QK[odd], half.reason_QK)
    assert np.array_equal(whole.filled_QF[odd], half.filled_QF)


def test_equal_texts_are_found_in_any_order() -> None:
    texts = np.array([[3, 1, 3, -1, 1, 3]])
    assert over_equal_texts(texts, np.array([[5, 2, 4, 9, 7, 6]]), np.minimum).tolist() == [
        [4, 2, 4, 9, 2, 4]
    ]
    order = np.array([[2.0, 0.5, 1.0, 0.0, 0.1, 3.0]])
    kept = first_different(texts, order, np.array([[True, True, True, False, True, True]]), 2)
    assert np.flatnonzero(kept[0]).tolist() == [2, 4]
