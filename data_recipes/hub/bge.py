"""The training data of bge-en-icl: a split a data set, in FlagEmbedding's format."""

from dataclasses import replace

import pyarrow as pa

from data_recipes.hub.card import TEXT, TEXTS, HubSet
from data_recipes.hub.rows import one_by_one, part_of
from embedtrain.data.formats import flagembedding
from embedtrain.data.formats.record import Record
from embedtrain.data.rows import Row

COLUMNS = pa.schema([("query", TEXT), ("pos", TEXTS), ("neg", TEXTS), ("prompt", TEXT), ("type", TEXT)])
MADE = (
    "`prompt` is the row's instruction; `type` its task: symmetric_class, symmetric_clustering and "
    "symmetric_sts are named after what they are. The row's source is the split. Blank documents, which "
    "some records have, are left out."
)
SCHEMA_FROM = "FlagEmbedding's documentation of its fine-tuning data, and a public reader of the set"
RETRIEVAL_OVERLAP = ("HotpotQA", "FEVER", "MSMARCO", "NQ", "QuoraRetrieval")


def make_row(record: Record) -> Row:
    """The row of a record; its source is the part that it stands in. Raises Fault."""
    return replace(flagembedding.make_row(record), source=part_of(record)[0])


SETS = (
    HubSet(
        name="bge-full",
        title="bge-en-icl: the full training data",
        task="many",
        hub_id="cfli/bge-full-data",
        revision="78f5c99b534a52824ab26bd24edda592eaed4c7a",
        split=None,
        licence="not stated",
        terms="The sets that it joins keep their own terms.",
        made=MADE,
        columns=COLUMNS,
        schema_from=SCHEMA_FROM,
        overlap=(
            *RETRIEVAL_OVERLAP, "ArguAna", "FiQA2018", "SciDocsRR", "StackOverflowDupQuestions",
            "AmazonReviewsClassification", "AmazonCounterfactualClassification", "Banking77Classification",
            "EmotionClassification", "TweetSentimentExtractionClassification", "MTOPIntentClassification",
            "ImdbClassification", "ToxicConversationsClassification", "ArxivClusteringS2S",
            "ArxivClusteringP2P", "BiorxivClusteringS2S", "BiorxivClusteringP2P", "MedrxivClusteringS2S",
            "MedrxivClusteringP2P", "RedditClustering", "RedditClusteringP2P", "TwentyNewsgroupsClustering",
            "STS22", "STSBenchmark",
        ),
        overlap_from="what mteb 2.26 notes of this set",
        notes="Quora, SciDocs and ArguAna have no training part in MTEB: rows of these splits are test rows.",
        make_rows=one_by_one(make_row),
    ),
    HubSet(
        name="bge-e5",
        title="bge-en-icl: the public part of E5-mistral's training data",
        task="many",
        hub_id="cfli/bge-e5data",
        split=None,
        licence="not stated",
        terms="The sets that it joins keep their own terms.",
        made=MADE,
        columns=COLUMNS,
        schema_from=SCHEMA_FROM,
        overlap=(*RETRIEVAL_OVERLAP, "MIRACLRetrieval", "MrTidyRetrieval", "T2Retrieval", "DuRetrieval"),
        overlap_from="the sets that the E5-mistral paper lists",
        make_rows=one_by_one(make_row),
    ),
)  # fmt: skip
