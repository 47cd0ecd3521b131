"""What stands in the files of an exported folder, and who reads it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from exports import DOCUMENTS, INSTRUCTED, PREFIXED, QUERIES, source_prompts, tiny_encoder, tiny_export
from safetensors.torch import load_file
from tiny_models import DECODERS
from transformers import AutoModel

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.export import export_encoder
from embedtrain.model.parity import check_parity
from embedtrain.show.facts import RunFacts, SourceFacts, StageFacts

LEGACY_BOOLEANS = {
    "pooling_mode_cls_token",
    "pooling_mode_mean_tokens",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
}


def test_switches_of_each_family(tmp_path: Path) -> None:
    keys = ("is_causal", "use_bidirectional_attention", "sliding_window", "use_sliding_window")
    found = {}
    for family in (*DECODERS, "bert"):
        _, folder = tiny_export(tmp_path / family, family)
        config = read_json(folder / "config.json")
        assert config["architectures"] == [type(AutoModel.from_pretrained(folder)).__name__]
        found[family] = {key: config[key] for key in keys if key in config}
    both = {"is_causal": False, "use_bidirectional_attention": True}
    assert found["llama"] == both
    assert found["mistral"] == both | {"sliding_window": None}
    assert found["qwen2"] == found["qwen3"] == both | {"sliding_window": None, "use_sliding_window": False}
    assert found["gemma3_text"].keys() == {"use_bidirectional_attention", "sliding_window"}
    assert found["bert"] == {}


def test_shards_load_alike(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "base")
    export_encoder(encoder, tmp_path / "model", max_shard_bytes=30_000)
    index = read_json(tmp_path / "model/model.safetensors.index.json")
    assert len(set(index["weight_map"].values())) > 1
    assert not any(name.startswith("model.") for name in index["weight_map"])
    check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS)


def test_export_is_whole_and_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "left_over").write_text("of a killed export")
    encoder, folder = tiny_export(tmp_path)
    assert not (tmp_path / "model.partial").exists()
    assert not (folder / "left_over").exists()
    with pytest.raises(UserError, match="never overwrites"):
        export_encoder(encoder, folder)


def test_no_trace_of_a_chat_template(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path)
    assert (
        "chat_template" in (tmp_path / "base/tokenizer_config.json").read_text()
        or (tmp_path / "base/chat_template.jinja").exists()
    )  # the premise
    assert not list(folder.glob("*.jinja"))
    assert not any("chat_template" in path.read_text() for path in folder.rglob("*.json"))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_files_hold_what_tei_requires(tmp_path: Path, family: str) -> None:
    """The fields without a default in the structs that TEI parses, by type (read in its sources, not run)."""
    _, folder = tiny_export(tmp_path, family)
    config = read_json(folder / "config.json")
    whole = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    whole += [
        "num_key_value_heads",
        "max_position_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ]
    assert {key: type(config[key]) for key in whole} == dict.fromkeys(whole, int)
    real = ["rms_norm_eps", "rope_theta", "initializer_range"]
    assert {key: type(config[key]) for key in real} == dict.fromkeys(real, float)
    assert config["hidden_act"] == "silu"
    assert config["rope_parameters"]["rope_theta"] == config["rope_theta"]
    assert config["use_bidirectional_attention"] is True
    assert config["is_causal"] is False
    if family == "qwen3":
        assert (config["attention_bias"], config["use_sliding_window"]) == (False, False)
    assert "embed_tokens.weight" in load_file(folder / "model.safetensors")


def test_files_beside_the_config_hold_what_tei_requires(tmp_path: Path) -> None:
    """As above, for the pooling, the length, the modules, the prompts and the tokenizer."""
    _, folder = tiny_export(tmp_path)
    pooling = read_json(folder / "1_Pooling/config.json")
    assert all(type(pooling[key]) is bool for key in LEGACY_BOOLEANS)
    assert [key for key in LEGACY_BOOLEANS if pooling[key]] == ["pooling_mode_mean_tokens"]
    assert type(read_json(folder / "sentence_bert_config.json")["max_seq_length"]) is int
    types = [m["type"] for m in read_json(folder / "modules.json")]
    assert types == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
    ]
    prompts = read_json(folder / "config_sentence_transformers.json")["prompts"]
    assert prompts == {"query": "query: ", "document": "text: "}
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is None


def test_the_pooling_holds_no_key_that_old_readers_refuse(tmp_path: Path) -> None:
    """sentence-transformers 5.1 knows these keys alone; old vLLM takes the first that is true as the mode."""
    known = {"word_embedding_dimension", "pooling_mode", "include_prompt", *LEGACY_BOOLEANS}
    for pool_instruction in (True, False):
        text = PREFIXED.model_copy(update={"query": "query:{text}", "document": "text:{text}"})
        place = tmp_path / str(pool_instruction)
        _, folder = tiny_export(place, text=text, pool_instruction=pool_instruction)
        pooling = read_json(folder / "1_Pooling/config.json")
        assert pooling.keys() <= known
        assert next(key for key, on in pooling.items() if on is True) == "pooling_mode_mean_tokens"
        assert pooling.get("include_prompt", True) is pool_instruction


def test_files_hold_what_vllm_reads(tmp_path: Path) -> None:
    """By vLLM 0.33's sources, not run: pooling by name or booleans, length, normalisation, attention."""
    _, folder = tiny_export(tmp_path, "qwen3", pooling="last_token", append_eos=True)
    modules = read_json(folder / "modules.json")
    path = next(m["path"] for m in modules if m["type"] == "sentence_transformers.models.Pooling")
    assert any(m["type"] == "sentence_transformers.models.Normalize" for m in modules)
    pooling = read_json(folder / path / "config.json")
    by_booleans = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    assert (pooling["pooling_mode"], by_booleans) == ("lasttoken", ["pooling_mode_lasttoken"])
    limits = read_json(folder / "sentence_bert_config.json")
    assert {"max_seq_length", "do_lower_case"} <= limits.keys()
    config = read_json(folder / "config.json")
    assert config["is_causal"] is False
    assert config["architectures"] == ["Qwen3Model"]
    processor = read_json(folder / "tokenizer.json")["post_processor"]
    assert "</s>" in json.dumps(processor)


def test_card_holds_the_facts_and_its_snippet_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=INSTRUCTED, append_eos=True)
    facts = RunFacts(
        "tiny",
        licence="Apache-2.0",
        stages=(StageFacts("first", "train", "10 steps"), StageFacts("both", "soup", "mean of 2")),
        sources=(SourceFacts("faq", 1234, 2.0, "find | it", "CC0"),),
    )
    sources = source_prompts(
        encoder, {"faq": {"instruction": "find | it"}, "long": {"instruction": "x" * 300}}
    )
    export_encoder(encoder, tmp_path / "model", facts=facts, sources=sources)
    card = (tmp_path / "model/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert {"sentence-transformers", "feature-extraction", "sentence-similarity"} <= set(front["tags"])
    assert front["license"] == "apache-2.0"
    for part in (
        "# tiny",
        "2. both (soup): mean of 2",
        "| faq | 1,234 | 2.00 | CC0 | find &#124; it |",
        "bidirectional attention, mean pooling",
        "special tokens: `text </s>`, also where a text is cut",
        "| faq | `'Instruct: find &#124; it\\nQuery:'` |",
        "(317 characters, in config_sentence_transformers.json)",
        'prompt_name="faq"',
    ):
        assert part in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    exec(code[1].replace("MODEL", str(tmp_path / "model")), {})
    assert "tensor" in capsys.readouterr().out
