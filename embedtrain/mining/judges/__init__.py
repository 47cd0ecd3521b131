"""What finds documents and scores them without a pair at a time: encoders, endpoints, BM25, the rows."""

from embedtrain.mining.judges.inquiry import UNIT_ROWS, Answers, Found, Inquiry, Judge
from embedtrain.mining.judges.opening import Setting, open_judge

__all__ = ["UNIT_ROWS", "Answers", "Found", "Inquiry", "Judge", "Setting", "open_judge"]
