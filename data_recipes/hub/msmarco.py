"""MS MARCO: passages with mined negatives (Tevatron), and the question answering set that they come from."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, TEXTS, HubSet
from data_recipes.hub.rows import one_by_one
from embedtrain.data.formats.record import Fault, Record, wrong
from embedtrain.data.formats.tevatron import inline_row
from embedtrain.data.rows import Row

PASSAGES = pa.list_(pa.struct([("docid", TEXT), ("title", TEXT), ("text", TEXT)]))
OVERLAP = ("MSMARCO", "MSMARCOv2", "MSMARCOHardNegatives", "NanoMSMARCORetrieval")


def judged_row(record: Record) -> Row:
    """A question with the passages that its judge selected, and those shown beside them. Raises Fault."""
    shown = record.require("passages", "the passages shown")
    if not isinstance(shown, dict) or not {"is_selected", "passage_text"} <= shown.keys():
        raise wrong("passages", shown, "lists is_selected and passage_text")
    texts, selected = shown["passage_text"], shown["is_selected"]
    if len(texts) != len(selected):
        raise Fault(f"'passages': found {len(texts)} texts and {len(selected)} judgments")
    positives, negatives = (
        tuple(text for text, chosen in zip(texts, selected, strict=True) if chosen == wanted)
        for wanted in (1, 0)
    )
    return Row(record.text("query"), positives, negatives, task="retrieval")


SETS = (
    HubSet(
        name="msmarco",
        title="MS MARCO passages with negatives of BM25 and coCondenser",
        task="retrieval",
        hub_id="Tevatron/msmarco-passage-aug",
        files=("train.jsonl.gz",),
        licence="MS MARCO, non-commercial",
        terms="Non-commercial research only.",
        made="Passages are joined as title and text. Repeated passages, and negatives that are positives, "
        "are left out.",
        columns=pa.schema(
            [
                *((name, TEXT) for name in ("query_id", "query")),
                *((name, PASSAGES) for name in ("positive_passages", "negative_passages")),
            ]
        ),
        schema_from="Tevatron's documentation of its inline format",
        overlap=OVERLAP,
        overlap_from="its name",
        make_rows=one_by_one(inline_row),
    ),
    HubSet(
        name="msmarco-qa",
        title="MS MARCO 2.1: questions with judged passages",
        task="retrieval",
        hub_id="microsoft/ms_marco",
        config="v2.1",
        revision="a47ee7aae8d7d466ba15f9f0bfac3b3681087b3a",
        licence="MS MARCO, non-commercial",
        terms="Non-commercial research only.",
        made="Passages that the judge selected are positives, the others shown are negatives. A question for "
        "which none was selected gives no row.",
        notes="Negatives were not judged one by one: some of them answer.",
        columns=pa.schema(
            [
                ("answers", TEXTS),
                (
                    "passages",
                    pa.struct(
                        [("is_selected", pa.list_(pa.int32())), ("passage_text", TEXTS), ("url", TEXTS)]
                    ),
                ),
                ("query", TEXT),
                ("query_id", pa.int32()),
                ("query_type", TEXT),
                ("wellFormedAnswers", TEXTS),
            ]
        ),
        schema_from="the set's card at this revision",
        num_rows=808_731,
        num_rows_from="the set's card, train",
        overlap=OVERLAP,
        overlap_from="its name",
        make_rows=one_by_one(judged_row),
    ),
)
