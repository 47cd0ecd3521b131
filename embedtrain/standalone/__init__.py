"""Mining, scoring and selecting on files, without a run file."""

from embedtrain.standalone.files import mine_file, score_file, select_file

__all__ = ["mine_file", "score_file", "select_file"]
