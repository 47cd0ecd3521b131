"""The run file that `embedtrain init` writes: a whole path, every line explained."""

import json

TEXT = """\
# An embedtrain run. `embedtrain check FILE` says all that is wrong with it, `embedtrain plan FILE` what it
# would do, `embedtrain run FILE` does it. Every key is explained in docs/config.md.
name: {name}
seed: 7
# bfloat16 is for GPUs
precision: float32

# The decoder to start from, as a hub id, a local folder, a .gguf file or pip:name==version.
base:
  model: {model}
  # revision pins a hub id to one commit; keep_first_layers cuts the model to its first k layers

# How token states become one vector.
encoder:
  attention: bidirectional
  pooling: mean

# The exact strings that the model sees. Add {{instruction}} where your rows or sources carry one.
text:
  query: "{{text}}"
  document: "{{text}}"
  max_query_tokens: 64
  max_document_tokens: 256

# Your rows, one JSON object a line with the keys query and positives (a list), and negatives where there
# are some.
sources:
  mine:
    rows: {rows}

# The stages, in order. A stage refers by name to stages above it.
stages:
  # Every other row's positive in the batch is a negative.
  - name: pretrain
    kind: train
    tuning: lora
    lora: {{rank: 16, alpha: 32}}
    objective:
      terms:
        - {{kind: infonce, temperature: 0.03}}
    batch_size: 64
    steps: 200
    lr: 2e-4
    schedule: {{kind: linear, warmup_fraction: 0.1}}

  # What the encoder so far takes for the positive, found exactly.
  - name: mined
    kind: mine
    from: pretrain
    top_k: 60

  # Of that, what is hard but most likely no positive.
  - name: negatives
    kind: select
    candidates: mined
    rules: [{{kind: perc_pos, fraction: 0.95}}]
    last_rank: 60
    num_negatives: 7

  # On from there, with hard negatives.
  - name: finetune
    kind: train
    from: pretrain
    rows: negatives
    tuning: lora
    lora: {{rank: 16, alpha: 32}}
    objective:
      terms:
        - {{kind: infonce, temperature: 0.03}}
    batch_size: 32
    num_negatives: 4
    steps: 100
    lr: 1e-4

  # A folder that sentence-transformers loads, at runs/{name}/model. To measure it on your own test data,
  # run embedtrain evaluate runs/{name}/model --data FOLDER
  - name: final
    kind: export
    from: finetune
    link: model
"""


def starter(name: str, rows: str, model: str) -> str:
    """The text of a commented run file for these rows and this base."""
    return TEXT.format(name=quoted(name), rows=quoted(rows), model=quoted(model))


def quoted(text: str) -> str:
    """The text as a YAML value: in double quotes where a plain one could be read as something else."""
    plain = text.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    return text if plain.isalnum() and not plain.isdigit() else json.dumps(text, ensure_ascii=False)
