"""The public part of E5-mistral's training data as the echo embeddings' authors share it: a file a set."""

import pyarrow as pa

from data_recipes.hub.card import TEXT, HubSet
from data_recipes.hub.rows import one_by_one, part_of
from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.rows import Row

WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
WEB_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
ALIKE = "Retrieve semantically similar text"
EQUIVALENT = "Given a question, retrieve questions that are semantically equivalent to the given question"
SAME_MEANING = "Find questions that have the same meaning as the input question"
# file → the instructions of E5-mistral's paper; of two, rows take turns
INSTRUCTIONS = {
    "allnli": (ENTAILED, ALIKE),
    "allnli_split1": (ENTAILED,),
    "allnli_split2": (ALIKE,),
    "dureader": (WEB_CHINESE,),
    "eli5_question_answer": (
        "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
    ),
    "fever": ("Given a claim, retrieve documents that support or refute the claim",),
    "hotpot_qa": ("Given a multi-hop question, retrieve documents that can help answer the question",),
    "miracl": (WIKIPEDIA,),
    "mrtydi": (WIKIPEDIA,),
    "msmarco_passage": ("Given a web search query, retrieve relevant passages that answer the query",),
    "msmarco_document": ("Given a web search query, retrieve relevant documents that answer the query",),
    "nq": (WIKIPEDIA,),
    "quora_duplicates": (EQUIVALENT, SAME_MEANING),
    "quora_duplicates_split1": (EQUIVALENT,),
    "quora_duplicates_split2": (SAME_MEANING,),
    "squad": ("Retrieve Wikipedia passages that answer the question",),
    "t2ranking": (WEB_CHINESE,),
    "trivia_qa": ("Retrieve Wikipedia passages that answer the question",),
}
TASKS = {"allnli": "nli", "quora": "pair_classification"}


def make_row(record: Record) -> Row:
    """The row of a line; its file says the source and the instruction. Raises Fault."""
    source, number = part_of(record)
    if source not in INSTRUCTIONS:
        raise Fault(f"the file is '{source}', expected one of {', '.join(INSTRUCTIONS)}")
    turns = INSTRUCTIONS[source]
    return Row(
        record.text("query"),
        (record.text("positive"),),
        (record.text("negative"),),
        instruction=turns[(number - 1) % len(turns)],
        task=TASKS.get(source.partition("_")[0], "retrieval"),
        source=source,
    )


SETS = (
    HubSet(
        name="echo",
        title="E5-mistral's public training data, as used by echo embeddings and LLM2Vec",
        task="many",
        hub_id="jakespringer/echo-embeddings",
        by_hand="Linked at https://github.com/jakespringer/echo-embeddings#training; unpack it and name the "
        "folder with --files.",
        licence="not stated",
        terms="The sets that it joins keep their own terms.",
        made="A line asks with `query`; `positive` and `negative` are its documents. The file's name is the "
        "source and chooses the instruction of the E5-mistral paper.",
        notes="allnli_split2 and the quora_duplicates files are symmetric: set `symmetric` on their sources.",
        columns=pa.schema([("query", TEXT), ("positive", TEXT), ("negative", TEXT)]),
        schema_from="LLM2Vec's public reader of these files",
        overlap=(
            "HotpotQA", "FEVER", "MSMARCO", "NQ", "QuoraRetrieval", "MIRACLRetrieval", "MrTidyRetrieval",
            "T2Retrieval", "DuRetrieval",
        ),
        overlap_from="the names of its files",
        make_rows=one_by_one(make_row),
    ),
)  # fmt: skip
