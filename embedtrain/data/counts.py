"""How many rows a file or a folder holds; pyarrow is imported only for those that need it."""

from pathlib import Path

from embedtrain.data.problems import Problems
from embedtrain.data.records import ROWS, check_file, is_row_folder, read_lines


def count_rows(path: Path | str) -> int:
    """Number of rows: from a parquet file's or a folder's footer, else by counting lines."""
    path, problems = Path(path).expanduser(), Problems()
    if is_row_folder(path):
        from embedtrain.data.parquet import open_parquet

        return int(open_parquet(path / ROWS).metadata.num_rows)
    path = check_file(path)
    if path.suffix == ".parquet":
        from embedtrain.data.rows import open_rows_parquet

        return int(open_rows_parquet(path).metadata.num_rows)
    number = sum(1 for _, line in read_lines(path, problems) if line.strip())
    problems.require()
    return number
