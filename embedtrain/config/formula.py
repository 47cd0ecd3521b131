"""An objective as a formula that a person reads: a line for the sum, then a few for each term.

s is a cosine of the model, s⁺ that of the positive, t a teacher's score, x a vector.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedtrain.config.denominator import (
    AboveFraction,
    AboveMargin,
    AnyMixing,
    BlockSwitches,
    Mask,
    PairMixing,
    SameLabel,
    SameText,
    TeacherRelevant,
)
from embedtrain.config.objective import Objective
from embedtrain.config.terms import (
    CoSENT,
    DistillCE,
    DistillKL,
    EmbedDistill,
    InfoNCE,
    Learned,
    MarginMSE,
    Matryoshka,
    Sigmoid,
    SoftLabels,
    Spread,
    Term,
)

BLOCKS = {
    "own_negatives": "own negatives",
    "in_batch_positives": "in-batch positives",
    "in_batch_negatives": "in-batch negatives",
    "query_query": "query–query",
    "document_document": "document–document",
    "document_query": "document–query",
    "symmetric": "both directions",
}


def objective_formula(objective: Objective) -> str:
    """The sum, `L = 1 · infonce + 0.5 · spread`, and below it each term, indented."""
    named = list(zip(term_names(objective), objective.terms, strict=True))
    total = " + ".join(f"{term.weight:g} · {name}" for name, term in named)
    lines = [line for name, term in named for line in term_lines(name, term, objective.matryoshka)]
    return "\n".join([f"L = {total}", *lines])


def term_names(objective: Objective) -> list[str]:
    """A name for each term, as in the curve: infonce, infonce_2 and so on in order of the terms of a kind."""
    seen: Counter[str] = Counter()
    names = []
    for term in objective.terms:
        seen[term.kind] += 1
        names.append(term.kind if seen[term.kind] == 1 else f"{term.kind}_{seen[term.kind]}")
    return names


def term_lines(name: str, term: Term, matryoshka: Matryoshka | None) -> list[str]:
    """The formula of one term; then what it sums over, hides, and sees."""
    formula, *details = FORMULAS[type(term)](term)
    details += dims_lines(term.matryoshka or matryoshka)
    if term.sources is not None:
        details.append(f"batches of {', '.join(term.sources)}")
    return [f"  {name} = {formula}", *(f"    {line}" for line in details)]


def switches_line(name: str, blocks: BlockSwitches) -> str:
    """A source's own switches; empty where it has none."""
    given = blocks.model_dump(exclude_none=True)
    switches = ", ".join(f"{BLOCKS[key]} {'on' if on else 'off'}" for key, on in given.items())
    return f"batches of {name}: {switches}" if switches else ""


def infonce_lines(term: InfoNCE) -> list[str]:
    """Positive against denominator, the focal weight, and what stands in the denominator."""
    formula = f"-log p, p = exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s/τ)), {number('τ', term.temperature)}"
    details = [sum_line(term, [mixing_words(mixing) for mixing in term.mixing])]
    if term.hardness:
        details.append(f"own negatives' s/τ + {term.hardness:g} s, no gradient through the addition")
    if term.symmetric:
        details.append("mean of both directions; from the positive, Σ over other queries")
    if term.focal:
        formula = formula.replace("-log p", f"-w log p, w = (1 - p)^{term.focal.gamma:g}", 1)
        divided = "Σ w" if term.focal.normalize else "the number of queries"
        gradient = "without" if term.focal.detach else "with"
        details.append(f"w {gradient} gradient, the sum divided by {divided}")
    return [formula, *details, *hidden_lines(term.masks)]


def sigmoid_lines(term: Sigmoid) -> list[str]:
    """Every pair by itself."""
    numbers = f"{number('τ', term.temperature)}, {number('b', term.bias)}"
    formula = f"-log σ(s⁺/τ + b) - Σ log σ(-s/τ - b), {numbers}"
    return [formula, sum_line(term, []), *hidden_lines(term.masks)]


def kl_lines(term: DistillKL) -> list[str]:
    """Student's distribution over the row's candidates against the teacher's."""
    numbers = f"τₜ = {term.teacher_temperature:g}, {number('τ', term.student_temperature)}"
    return [f"KL(softmax(t/τₜ) ‖ softmax(s/τ)), {numbers}", teacher_line(term)]


def ce_lines(term: DistillCE) -> list[str]:
    """Cross-entropy of the same two distributions."""
    numbers = f"τₜ = {term.teacher_temperature:g}, {number('τ', term.student_temperature)}"
    return [f"-Σ softmax(t/τₜ) log softmax(s/τ), {numbers}", teacher_line(term)]


def margin_lines(term: MarginMSE) -> list[str]:
    """Squared difference of two margins."""
    return [f"((s⁺ - s⁻)/τ - (t⁺ - t⁻))², τ = {term.temperature:g}", teacher_line(term)]


def cosent_lines(term: CoSENT) -> list[str]:
    """One number for the whole batch."""
    return [f"log(1 + Σ exp((s_j - s_i)/τ)), τ = {term.temperature:g}", "Σ over pairs graded i above j"]


def embed_distill_lines(term: EmbedDistill) -> list[str]:
    """Distance of vectors, and whose."""
    student = "W x + b" if term.projection else "x"
    unit = "both of length 1" if term.normalize else "neither normalised"
    squared = f"|{student} - t|², {unit}"
    formula = f"1 - cos({student}, t)" if term.distance == "cosine" else squared
    texts = chosen(term, "queries", "positives", "negatives")
    learned = ["W and b learned"] if term.projection else []
    return [formula, f"t the teacher's vector of {texts}", *learned]


def spread_lines(term: Spread) -> list[str]:
    """Second moment of cosines."""
    return [f"mean of cos² over pairs of different {chosen(term, 'queries', 'documents')}"]


FORMULAS: Mapping[type[Term], Callable[[Any], list[str]]] = {
    InfoNCE: infonce_lines,
    DistillKL: kl_lines,
    DistillCE: ce_lines,
    MarginMSE: margin_lines,
    CoSENT: cosent_lines,
    Sigmoid: sigmoid_lines,
    EmbedDistill: embed_distill_lines,
    Spread: spread_lines,
}


def number(symbol: str, value: float | Learned) -> str:
    """`τ = 0.03`, or where a learned number starts and its bounds."""
    if isinstance(value, Learned):
        return f"{symbol} learned from {value.initial:g} in {value.minimum:g} to {value.maximum:g}"
    return f"{symbol} = {value:g}"


def chosen(term: EmbedDistill | Spread, *names: str) -> str:
    """Those of the switches that are on."""
    return ", ".join(name for name in names if getattr(term, name))


def sum_line(term: InfoNCE | Sigmoid, more: Sequence[str]) -> str:
    """What the sum over negatives holds."""
    on = [BLOCKS[key] for key in BLOCKS if key != "symmetric" and getattr(term, key, False)]
    return "Σ over " + (", ".join([*on, *more]) or "nothing")


def mixing_words(mixing: AnyMixing) -> str:
    """`2 mixed of own negatives (λ ~ Beta(2, 2), shared)`."""
    parents = "own negatives" if mixing.parents == "own_negatives" else f"the {mixing.num_parents} hardest"
    if isinstance(mixing, PairMixing):
        count, weights = mixing.count, f"λ ~ Beta({mixing.alpha:g}, {mixing.beta:g})"
    else:
        count, weights = 1, f"softmax(s/{mixing.temperature:g})"
    flags = [name for name, on in (("shared", mixing.shared), ("detached", mixing.detach)) if on]
    return f"{count} mixed of {parents} ({', '.join([weights, *flags])})"


def hidden_lines(masks: Sequence[Mask]) -> list[str]:
    """What the masks hide, in one line; none where there is no mask."""
    return ["hidden: " + "; ".join(MASKS[type(mask)](mask) for mask in masks)] if masks else []


def margin_words(mask: AboveMargin) -> str:
    """`s > s⁺ + 0.1`."""
    return f"{compared(mask)} {signed(mask.margin)}"


def fraction_words(mask: AboveFraction) -> str:
    """`s > s⁺ - 0.05 |s⁺|`."""
    score = "t⁺" if mask.judge == "teacher" else "s⁺"
    return f"{compared(mask)} {signed(round(mask.fraction - 1, 12))} |{score}|"


def compared(mask: AboveMargin | AboveFraction) -> str:
    """Two cosines of the model, or of the teacher."""
    return "t > t⁺" if mask.judge == "teacher" else "s > s⁺"


def signed(value: float) -> str:
    """`+ 0.1` or `- 0.1`."""
    return f"{'-' if value < 0 else '+'} {abs(value):g}"


MASKS: Mapping[type[Mask], Callable[[Any], str]] = {
    SameText: lambda mask: "same text",
    SameLabel: lambda mask: "same label",
    AboveMargin: margin_words,
    AboveFraction: fraction_words,
    TeacherRelevant: lambda mask: f"own negatives with {mask.teacher} ≥ {mask.threshold:g}",
}


def teacher_line(term: SoftLabels) -> str:
    """Where t comes from and how it is normalised."""
    names = {"scores": "the rows' scores", "vectors": "cosines of the teacher's vectors"}
    scaled = {"min_max": ", scaled to 0 to 1 a row", "z_score": ", scaled to mean 0, deviation 1 a row"}
    name = names.get(term.teacher, f"the column '{term.teacher}'")
    return f"t = {name}{scaled.get(term.teacher_normalization, '')}"


def dims_lines(matryoshka: Matryoshka | None) -> list[str]:
    """The dims trained and their weights; none where only the full vector is."""
    if matryoshka is None:
        return []
    weights = matryoshka.weights or (1.0,) * len(matryoshka.dims)
    total = sum(weights) if matryoshka.normalize_weights else 1.0
    pairs = (f"{dim}: {weight / total:g}" for dim, weight in zip(matryoshka.dims, weights, strict=True))
    return [f"summed over dims {{{', '.join(pairs)}}}"]
