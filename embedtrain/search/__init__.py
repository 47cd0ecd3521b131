"""Finds the best documents for queries: exact, approximate and by words."""

from embedtrain.search.bm25 import BM25Index, bm25_search
from embedtrain.search.exact import Ranking, best, dot, search, search_chunks

__all__ = ["BM25Index", "Ranking", "best", "bm25_search", "dot", "search", "search_chunks"]
