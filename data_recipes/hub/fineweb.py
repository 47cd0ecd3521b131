"""FineWeb: web pages. The first sentence asks for what follows it; LEAF learns vectors of both."""

import re

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import one_by_one
from embedtrain.data.formats.record import Record
from embedtrain.data.rows import Row

SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
FEWEST_WORDS = 4  # a shorter start is no query: it is joined with what follows


def make_row(record: Record) -> Row:
    """The page's first sentence or heading, and the rest; no positive where there is no rest."""
    text = record.text("text").strip()
    for end in SENTENCE_END.finditer(text):
        if len(text[: end.start()].split()) >= FEWEST_WORDS:
            return Row(" ".join(text[: end.start()].split()), (text[end.end() :],), task="title_body")
    return Row(text, ())


SETS = (
    HubSet(
        name="fineweb",
        title="FineWeb, sample of 10 billion tokens",
        task="title_body",
        hub_id="HuggingFaceFW/fineweb",
        config="sample-10BT",
        licence="ODC-By 1.0",
        terms="The pages are under Common Crawl's terms of use.",
        made="Query: the first sentence or heading of at least four words; positive: the rest of the page. A "
        "page of one sentence gives no row.",
        notes="Meant for terms that learn a teacher's vectors, where every text counts alone. As pairs it is "
        "weak: the first sentence of a page often says little of it.",
        columns=pa.schema(
            [
                *((name, TEXT) for name in ("text", "id", "dump", "url", "date", "file_path", "language")),
                ("language_score", pa.float64()),
                ("token_count", pa.int64()),
            ]
        ),
        schema_from="the cards of copies of the set",
        overlap=(),
        overlap_from="no known list; crawled pages may hold any public test text: audit it",
        make_rows=one_by_one(make_row),
    ),
)
