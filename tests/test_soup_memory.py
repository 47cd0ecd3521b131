"""The measurement of a soup's memory, on models too small to prove anything: it measures, and says so."""

import json
import subprocess
import sys
from pathlib import Path

from embedtrain.artifacts import read_json

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def test_small_models_are_measured_but_prove_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "tools/soup_memory.py", "--shape", json.dumps(TINY), "--folder", str(tmp_path)]
    command += ["--out", str(tmp_path / "memory.json"), "--methods", "mean_of_adapters"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "FAILED: the table of tokens has 0 MB, too few to prove it "
        "(at most 300 MB of anonymous memory above an interpreter with torch)"
    )
    found = read_json(tmp_path / "memory.json")
    assert found["passed"] is False
    [figure] = found["figures"]
    assert figure["method"] == "mean_of_adapters"
    assert 0 < figure["peak_bytes"] < 300e6  # what the other imports take
    assert figure["written_bytes"] == found["checkpoint_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]
