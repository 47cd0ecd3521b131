"""MIRACL: questions in sixteen languages, with judged passages of their Wikipedia."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import one_by_one
from embedtrain.data.formats.tevatron import inline_row

PASSAGES = pa.list_(pa.struct([("docid", TEXT), ("title", TEXT), ("text", TEXT)]))

SETS = (
    HubSet(
        name="miracl",
        title="MIRACL, training parts",
        task="retrieval",
        hub_id="miracl/miracl",
        config="en",
        revision="refs/convert/parquet",
        licence="Apache-2.0, CC BY-SA",
        terms="Apache-2.0 for the judgments; the passages are Wikipedia's.",
        made="Passages judged relevant are positives, those judged not to be are negatives; title and text "
        "are joined. A question without a relevant passage gives no row.",
        notes="A config a language (--config de). The hub asks for a login: `huggingface-cli login`.",
        columns=pa.schema(
            [
                *((name, TEXT) for name in ("query_id", "query")),
                *((name, PASSAGES) for name in ("positive_passages", "negative_passages")),
            ]
        ),
        schema_from="the set's loading script",
        overlap=("MIRACLRetrieval", "MIRACLRetrievalHardNegatives", "MIRACLReranking"),
        overlap_from="its name: MTEB measures on its dev part",
        make_rows=one_by_one(inline_row),
    ),
)
