"""AllNLI: SNLI and MultiNLI, judged pairs of a premise and a hypothesis."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="all-nli",
        title="AllNLI: SNLI and MultiNLI",
        task="nli",
        hub_id="sentence-transformers/all-nli",
        config="pair-class",
        licence="CC BY-SA 4.0 and others",
        terms="SNLI CC BY-SA 4.0; MultiNLI by parts: OANC, CC BY-SA 3.0, CC BY 3.0.",
        made="A row for each premise that entails something: entailed hypotheses are positives, "
        "contradicting ones negatives.",
        notes="Symmetric for similarity, asymmetric for entailment: E5-mistral trains it both ways.",
        columns=pa.schema([("premise", TEXT), ("hypothesis", TEXT), ("label", pa.int64())]),
        schema_from="the set's card: label 0 entailment, 1 neutral, 2 contradiction",
        num_rows=942_069,
        num_rows_from="the set's card, pair-class, train",
        overlap=("XNLI",),
        overlap_from="its origin: XNLI's English training part is MultiNLI",
        make_rows=of_task("nli"),
    ),
)
