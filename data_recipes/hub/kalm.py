"""KaLM's fine-tuning data: the instruction stands in the query."""

import re

import pyarrow as pa

from data_recipes.hub.card import TEXT, TEXTS, HubSet
from data_recipes.hub.rows import one_by_one
from embedtrain.data.formats.record import Record
from embedtrain.data.rows import Row

INSTRUCTED = re.compile(r"\s*Instruct:\s*(.*?)\s*Query:\s*(.*)", re.DOTALL)


def make_row(record: Record) -> Row:
    """The row of a record, its instruction taken out of the query and of documents that have the same."""
    instruction, query = split_instruction(record.text("query"))
    positives, negatives = (
        tuple(without(text, instruction) for text in (record.texts(key) if record.has(key) else ()))
        for key in ("pos", "neg")
    )
    return Row(query, positives, negatives, instruction=instruction)


def split_instruction(text: str) -> tuple[str | None, str]:
    """(instruction, query) of `Instruct: … Query: …`; no instruction where there is none."""
    match = INSTRUCTED.fullmatch(text)
    return (match[1], match[2]) if match and match[1] else (None, text)


def without(text: str, instruction: str | None) -> str:
    """A document without the query's instruction, which documents of symmetric tasks have too."""
    own, bare = split_instruction(text)
    return bare if own == instruction else text


SETS = (
    HubSet(
        name="kalm-finetuning",
        title="KaLM-Embedding: fine-tuning data",
        task="many",
        hub_id="KaLM-Embedding/KaLM-embedding-finetuning-data",
        revision="e9443ab6f5d4dc29c79cea03834e932428ed6ab1",
        licence="MIT, parts keep theirs",
        terms="The card says MIT; the sets that it joins keep their own terms.",
        made="`Instruct: … Query: …` in `query` is split into the row's instruction and its query. Blank and "
        "repeated documents, and negatives that are positives, are left out.",
        notes="A config a data set: choose one with --config.",
        columns=pa.schema([("query", TEXT), ("pos", TEXTS), ("neg", TEXTS)]),
        schema_from="public descriptions and readers of this revision, mostly 7 negatives a record",
        overlap=(
            "MSMARCO", "NQ", "HotpotQAHardNegatives", "FEVER", "FiQA2018", "NFCorpus", "SciFact", "TRECCOVID",
            "DBPedia", "QuoraRetrieval", "MIRACLRetrieval", "MIRACLReranking", "MrTidyRetrieval",
            "MultiLongDocRetrieval", "ESCIReranking", "CodeFeedbackST", "CodeFeedbackMT",
            "ArxivClusteringP2P", "ArxivClusteringS2S", "BiorxivClusteringP2P.v2", "BiorxivClusteringS2S.v2",
            "MedrxivClusteringP2P.v2", "MedrxivClusteringS2S.v2", "RedditClustering", "RedditClusteringP2P",
            "StackExchangeClustering", "StackExchangeClusteringP2P", "TwentyNewsgroupsClustering",
            "YahooAnswersTopicsClassification", "Banking77Classification", "AmazonPolarityClassification",
            "ImdbClassification", "EmotionClassification", "TweetSentimentExtractionClassification",
            "ToxicConversationsClassification", "AmazonReviewsClassification",
            "AmazonCounterfactualClassification", "MassiveIntentClassification",
            "MassiveScenarioClassification", "MTOPDomainClassification", "MTOPIntentClassification",
            "PawsXPairClassification", "ATEC", "BQ",
        ),
        overlap_from="what mteb 2.26 notes of KaLM's models",
        make_rows=one_by_one(make_row),
    ),
)  # fmt: skip
