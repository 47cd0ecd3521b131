"""Finds the best documents for queries: exact, approximate and by words."""

from embedtrain.search.approximate import approximate_units
from embedtrain.search.bm25 import BM25Index, bm25_search
from embedtrain.search.exact import Ranking, best, dot, search, search_chunks
from embedtrain.search.signs import search_signs
from embedtrain.search.units import Rankings, bm25_units, search_units

__all__ = [
    "BM25Index",
    "Ranking",
    "Rankings",
    "approximate_units",
    "best",
    "bm25_search",
    "bm25_units",
    "dot",
    "search",
    "search_chunks",
    "search_signs",
    "search_units",
]
