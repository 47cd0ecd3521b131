"""Random settings of the contrastive terms, and random batches to try them on."""

from hypothesis import strategies as st
from loss_reference import random_gathered

from embedtrain.batch import Gathered
from embedtrain.config.denominator import (
    SAME_TEXT,
    AboveFraction,
    AboveMargin,
    Focal,
    ListMixing,
    PairMixing,
    SameLabel,
    TeacherRelevant,
)
from embedtrain.config.terms import InfoNCE, Sigmoid

JUDGES = st.sampled_from(["student", "teacher"])
MARGINS, FRACTIONS = st.sampled_from([0.1, 0.0, -0.3]), st.sampled_from([0.95, 0.5, 1.2])
MASK = st.one_of(
    st.just(SAME_TEXT),
    st.just(SameLabel(kind="same_label")),
    st.builds(AboveMargin, kind=st.just("above_margin"), margin=MARGINS, judge=JUDGES),
    st.builds(
        AboveFraction,
        kind=st.just("above_fraction"),
        fraction=FRACTIONS,
        judge=JUDGES,
    ),
    st.builds(
        TeacherRelevant,
        kind=st.just("teacher_relevant"),
        teacher=st.sampled_from(["scores", "reranker"]),
        threshold=st.sampled_from([0.5, 1.5]),
    ),
)
MASKS = st.lists(MASK, max_size=3).map(tuple)
PARENTS = st.sampled_from([("own_negatives", False), ("own_negatives", True), ("hardest", False)])


@st.composite
def mixings(draw: st.DrawFn) -> PairMixing | ListMixing:
    parents, shared = draw(PARENTS)
    common = {"parents": parents, "shared": shared, "num_parents": draw(st.integers(1, 5))}
    if draw(st.booleans()):
        return ListMixing(kind="list", temperature=draw(st.sampled_from([0.05, 1.0])), **common)
    return PairMixing(kind="pair", count=draw(st.integers(1, 3)), **common)


SWITCHES = {name: st.booleans() for name in ("own_negatives", "in_batch_positives", "in_batch_negatives")}
FOCAL = st.builds(Focal, gamma=st.sampled_from([0.5, 2.0]), detach=st.booleans(), normalize=st.booleans())


@st.composite
def infonces(draw: st.DrawFn) -> InfoNCE:
    """Any InfoNCE with a fixed temperature."""
    symmetric = draw(st.booleans())
    return InfoNCE(
        kind="infonce",
        temperature=draw(st.sampled_from([0.02, 0.1, 1.0])),
        **{name: draw(on) for name, on in SWITCHES.items()},
        query_query=draw(st.booleans()),
        document_document=draw(st.booleans()),
        document_query=not symmetric and draw(st.booleans()),
        symmetric=symmetric,
        masks=draw(MASKS),
        focal=draw(st.none() | FOCAL),
        hardness=draw(st.sampled_from([0.0, 5.0])),
        mixing=tuple(draw(st.lists(mixings(), max_size=2))),
    )


SIGMOIDS = st.builds(
    Sigmoid,
    kind=st.just("sigmoid"),
    temperature=st.sampled_from([0.1, 1.0]),
    bias=st.sampled_from([-10.0, 0.5]),
    masks=MASKS,
    **SWITCHES,
)


def gathered(ties: st.SearchStrategy[bool]) -> st.SearchStrategy[Gathered]:
    """Batches with many equal texts and with few, and with all, some or no queries local."""
    return st.builds(
        random_gathered,
        st.integers(0, 2**32 - 1),
        ties=ties,
        num_keys=st.sampled_from([4, 30]),
        local=st.sampled_from(["all", "part", "part", "none"]),
    )


GATHERED, UNTIED = gathered(st.booleans()), gathered(st.just(False))
