"""The STS benchmark: pairs of sentences with a grade of their similarity."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import of_task

SETS = (
    HubSet(
        name="stsb",
        title="STS benchmark, training part",
        task="sts",
        hub_id="sentence-transformers/stsb",
        licence="not stated",
        terms="Its sentences come from news, captions and forums, with terms of their own.",
        made="A row for each pair with its grade, from 0 to 1, as `score`: for CoSENT, which learns the "
        "order of grades. A contrastive term must not see these rows.",
        notes="Symmetric: set `symmetric` on its source.",
        columns=pa.schema([("sentence1", TEXT), ("sentence2", TEXT), ("score", pa.float64())]),
        schema_from="sentence-transformers' documentation",
        num_rows=5_749,
        num_rows_from="the benchmark's paper",
        overlap=("STSBenchmark", "STSBenchmarkMultilingualSTS"),
        overlap_from="its name: MTEB measures on its test part",
        make_rows=of_task("sts"),
    ),
)
