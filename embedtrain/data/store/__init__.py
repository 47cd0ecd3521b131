"""Rows on disk: opened as arrays of text ids, each text once, in memory that does not grow with them."""

from embedtrain.data.store.opening import open_rows, open_source
from embedtrain.data.store.view import RowStore
from embedtrain.data.store.writing import store_rows, write_store

__all__ = ["RowStore", "open_rows", "open_source", "store_rows", "write_store"]
