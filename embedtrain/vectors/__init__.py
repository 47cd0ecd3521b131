"""Encodes texts into a store on disk, so that no text is encoded twice and a kill costs one shard a process.

A store has a folder for each recipe: the weights, the formatting and the side that turn a text into a vector.
Other weights or another template are another folder, so nothing stale is ever read. In it lie shards, each a
matrix of vectors, read as a memory map, and, written last, the keys of its texts.

What a call finds missing is written down (a plan) before the first shard of it is encoded. So any number of
processes make the same shards, in any order, and so does a run that goes on after a kill.
"""

from embedtrain.vectors.filling import Filled, encode_texts, fill_store
from embedtrain.vectors.recipe import Recipe, Side, TextEncoder, vector_key
from embedtrain.vectors.shards import read_vectors

__all__ = [
    "Filled",
    "Recipe",
    "Side",
    "TextEncoder",
    "encode_texts",
    "fill_store",
    "read_vectors",
    "vector_key",
]
