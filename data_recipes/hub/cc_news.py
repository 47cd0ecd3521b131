"""CC-News: headlines and their articles."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="cc-news",
        title="CC-News: headline and article",
        task="title_body",
        hub_id="sentence-transformers/ccnews",
        licence="not stated",
        terms="The articles are under Common Crawl's terms of use.",
        made="Query: the headline; positive: the article. Records without either give no row.",
        columns=pa.schema([("title", TEXT), ("article", TEXT)]),
        schema_from="public readers of the set",
        num_rows=614_664,
        num_rows_from="a public table of the sets' counts, after the set's card",
        overlap=(),
        overlap_from="no known list",
        make_rows=of_task("title_body", {"body": "article"}),
    ),
)
