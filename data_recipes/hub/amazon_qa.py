"""Amazon QA: customers' questions about products, and the answers of others."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="amazon-qa",
        title="Amazon QA: questions and answers about products",
        task="retrieval",
        hub_id="sentence-transformers/amazon-qa",
        licence="not stated",
        terms="None at its origin (UCSD) either.",
        made="Query: the question; positive: an answer.",
        columns=pa.schema([("query", TEXT), ("answer", TEXT)]),
        schema_from="public readers of the set",
        num_rows=2_507_114,
        num_rows_from="a public audit of its licence, after the set's card",
        overlap=(),
        overlap_from="no known list; its products are also those of ESCIReranking",
        make_rows=of_task("retrieval", {"positives": "answer"}),
    ),
)
