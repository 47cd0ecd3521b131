"""Natural Questions: questions asked of a search engine, answered by Wikipedia."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="natural-questions",
        title="Natural Questions: question and passage",
        task="retrieval",
        hub_id="sentence-transformers/natural-questions",
        licence="CC BY-SA 3.0",
        terms="Text of Wikipedia.",
        made="Query: the question; positive: the passage of Wikipedia that holds the long answer.",
        columns=pa.schema([("query", TEXT), ("answer", TEXT)]),
        schema_from="sentence-transformers' documentation",
        num_rows=100_231,
        num_rows_from="the set's card",
        overlap=("NQ", "NQHardNegatives", "NanoNQRetrieval"),
        overlap_from="its name: BEIR measures on its dev part",
        make_rows=of_task("retrieval", {"positives": "answer"}),
    ),
)
