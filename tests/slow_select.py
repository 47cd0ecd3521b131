"""The rules of a select stage in plain Python: one row, one candidate, one text after the other."""

import math
from dataclasses import dataclass

import numpy as np

from embedtrain.config.mining import Select
from embedtrain.data.rows import Row
from embedtrain.mining.tables import Column, Mined


@dataclass
class Case:
    """All rows of a source, its documents, and what was mined for some of the rows."""

    rows: list[Row]
    documents: list[str]
    mined: Mined
    symmetric: bool = False

    def row(self, line: int) -> Row:
        return self.rows[self.mined.query_row_Q[line]]

    def entries(self, line: int) -> list[tuple[int, str, int]]:
        """(place, text, rank) of each candidate."""
        ids, ranks = self.mined.ids_QK[line].tolist(), self.mined.ranks_QK[line].tolist()
        return [(k, self.documents[id].strip(), ranks[k]) for k, id in enumerate(ids) if id >= 0]

    def known(self, query: str) -> set[str]:
        """Every text that some row calls a positive of the query."""
        found = {p.strip() for row in self.rows if row.query.strip() == query for p in row.positives}
        if self.symmetric:
            found |= {r.query.strip() for r in self.rows if query in {p.strip() for p in r.positives}}
        return found

    def labels(self, text: str) -> set[str]:
        """The labels of the rows with this query or positive."""
        rows = [row for row in self.rows if text in {t.strip() for t in (row.query, *row.positives)}]
        return {row.label for row in rows if row.label is not None}


def slow_limit(rule, scores: list[float], every: list[float]) -> float:
    """The score to stay below, as the papers write it; NaN where a positive has no score."""
    if rule.kind in ("absolute", "teacher_ceiling"):
        return rule.ceiling
    if any(math.isnan(score) for score in scores):
        return math.nan
    positive = min(scores)
    if rule.kind == "margin_pos":
        return positive - rule.margin
    bound = rule.fraction * positive if positive > 0 else (2 - rule.fraction) * positive
    if rule.kind == "adaptive":
        bound = bound if rule.floor is None else max(bound, rule.floor)
        bound = bound if rule.ceiling is None else min(bound, rule.ceiling)
        if rule.ceiling_quantile is not None:
            bound = min(bound, slow_quantile(sorted(every), rule.ceiling_quantile))
    return bound


def slow_quantile(ordered: list[float], share: float) -> float:
    """Linear between neighbours."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_rank(case: Case, line: int) -> int:
    """The worst rank among the row's positives; 0 where one of them is no candidate."""
    ranks = []
    for positive in case.row(line).positives:
        own = [rank for _, text, rank in case.entries(line) if text == positive.strip()]
        if not own:
            return 0
        ranks.append(min(own))
    return max(ranks)


def slow_reasons(case: Case, columns: dict[str, Column], select: Select, judge: str) -> list[dict]:
    """For each mined row the reason of each place: a name, or the number of a rule; before the choice."""
    lines = range(len(case.mined.query_row_Q))
    answers = [slow_row(case, line, columns, select, judge) for line in lines]
    promoted: dict[str, set[str]] = {}
    for line, answer in enumerate(answers):
        for place, text, _ in case.entries(line):
            if answer[place] == "promoted":
                query = case.row(line).query.strip()
                promoted.setdefault(query, set()).add(text)
                if case.symmetric:
                    promoted.setdefault(text, set()).add(query)
    for line, answer in enumerate(answers):
        for place, text, _ in case.entries(line):
            if answer[place] == "kept" and text in promoted.get(case.row(line).query.strip(), set()):
                answer[place] = "same_as_positive"
    return answers


def slow_row(case: Case, line: int, columns: dict[str, Column], select: Select, judge: str) -> dict:
    entries, query = case.entries(line), case.row(line).query.strip()
    top, rank = select.require_positive_in_top, slow_rank(case, line)
    answer = {}
    for place, text, _ in entries:
        best = min(other for _, same, other in entries if same == text)
        if top is not None and not 1 <= rank <= top:
            answer[place] = "row_dropped"
        elif text == query:
            answer[place] = "same_as_query"
        elif text in case.known(query):
            answer[place] = "same_as_positive"
        elif best < select.first_rank:
            answer[place] = "before_first_rank"
        elif best > select.last_rank:
            answer[place] = "after_last_rank"
        elif any(math.isnan(columns[name].score_QK[line, place]) for name in slow_needed(select, judge)):
            answer[place] = "not_scored"
        else:
            answer[place] = slow_rules(case, line, place, text, best, columns, select, judge)
    for place, text, _ in entries:
        others = [answer[other] for other, same, _ in entries if same == text]
        if answer[place] == "kept" and any(reason not in ("kept", "same_text") for reason in others):
            answer[place] = "same_text"
    return answer


def slow_needed(select, judge) -> list[str]:
    """Columns without whose score nothing is a negative, whatever the rules."""
    labels = [select.soft_labels] if select.soft_labels else []
    drawn = select.choice.kind == "sample" and select.choice.temperature is not None
    return labels + ([judge] if drawn else [])


def slow_rules(case, line, place, text, best, columns, select, judge) -> str | int:
    for number, rule in enumerate(select.rules):
        if rule.kind == "shift":
            if best <= rule.ranks:
                return number
        elif rule.kind == "same_label":
            if case.labels(case.row(line).query.strip()) & case.labels(text):
                return number
        else:
            column = columns[rule.judge or judge]
            every = [float(s) for scores in column.positive_scores for s in scores if not math.isnan(s)]
            limit = slow_limit(rule, [float(s) for s in column.positive_scores[line]], every)
            score = float(column.score_QK[line, place])
            if math.isnan(score) or math.isnan(limit):
                return "not_scored"
            if not score < limit:
                promotes = rule.kind == "teacher_ceiling" and rule.promote
                return "promoted" if promotes else number
    return "kept"


def slow_choice(
    case: Case, line: int, answer: dict, select: Select, scores_K: np.ndarray, noise_K: np.ndarray
) -> None:
    """Leave `kept` at most `num_negatives`, in the order of rank or of the draw."""
    pool = [place for place, reason in sorted(answer.items()) if reason == "kept"]
    stays = list(pool)
    if select.choice.kind == "sample":
        pool = pool[: select.choice.from_top]
        heat = select.choice.temperature
        weight = {p: noise_K[p] + (0 if heat is None else float(scores_K[p]) / heat) for p in pool}
        pool.sort(key=lambda place: -weight[place])
    texts = {place: text for place, text, _ in case.entries(line)}
    kept: list[int] = []
    for place in pool:
        if len(kept) < select.num_negatives and texts[place] not in {texts[other] for other in kept}:
            kept.append(place)
    for place in stays:
        if place not in kept:
            again = texts[place] in {texts[other] for other in kept}
            answer[place] = "same_text" if again else "not_needed"
