"""Training steps of other trainers and of our own, one small file each; `tools/bench/worker.py` holds one."""
