"""Quora's question pairs, judged as duplicates or not."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="quora",
        title="Quora duplicate questions",
        task="pair_classification",
        hub_id="sentence-transformers/quora-duplicates",
        config="pair-class",
        licence="Quora, non-commercial",
        terms="Quora's terms of service allow non-commercial use.",
        made="A row for each question that has a duplicate: duplicates are positives, questions that were "
        "judged not to be are negatives. A pair counts from both sides.",
        notes="Symmetric: set `symmetric` on its source.",
        columns=pa.schema([("sentence1", TEXT), ("sentence2", TEXT), ("label", pa.int64())]),
        schema_from="sentence-transformers' documentation, label 1 duplicate",
        num_rows=404_000,
        num_rows_from="the hub's viewer, pair-class, to the thousand",
        overlap=("QuoraRetrieval", "NanoQuoraRetrieval"),
        overlap_from="its origin: their test questions come from the same pairs",
        make_rows=of_task("pair_classification"),
    ),
)
