"""The encoder as a value: order, batches, sides, empty texts, gradients under recomputation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import DECODERS, ENCODERS, TEXTS, save_tiny

from embedtrain.batch import join
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.encoder import CPU_TOKENS, Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, tune_all


def load_tiny(
    folder: Path, family: str = "llama", text: TextFormat | None = None, **config: object
) -> Encoder:
    path = save_tiny(family, folder / family)
    return load_encoder(Base(model=str(path)), EncoderConfig.model_validate(config), text or TextFormat())


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "last_token", "cls"])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_company_and_order_do_not_matter(tmp_path: Path, family: str, pooling: str) -> None:
    """A text alone, in a small batch or in a large one: the same vector, in the order given."""
    encoder = load_tiny(tmp_path, family, pooling=pooling)
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    small = encoder.encode(TEXTS, tokens_per_batch=40)
    assert together.dtype == np.float32
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - small).max() < 1e-5
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6
    assert len(np.unique(together.round(4), axis=0)) == len(TEXTS), "the premise: the texts differ"


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_a_padded_batch_of_one_length_needs_no_mask(tmp_path: Path, family: str, kernel: str) -> None:
    """The backbone is asked without one; the vectors are those of the same texts beside a longer one."""
    encoder = load_tiny(tmp_path, family, attention_kernel=kernel).eval()
    batch = encoder.tokenize(encoder.format([TEXTS[1], TEXTS[1]], "query"), 32)
    longer = encoder.tokenize(encoder.format([TEXTS[3]], "query"), int(batch.lengths_T[0]) + 3)
    assert longer.lengths_T[0] == batch.lengths_T[0] + 3, "the premise: one text is longer"
    masks: list[object] = []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.inference_mode():
        plain, padded = encoder(batch), encoder(join(batch, longer))[:2]
    assert masks[0] is None
    assert masks[1] is not None
    assert (plain - padded).abs().max() < 1e-5


def test_batches_on_a_cpu_fit_its_caches(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    sizes: list[int] = []
    encoder.register_forward_pre_hook(lambda module, args: sizes.append(args[0].num_tokens))
    encoder.encode(["a text " * 20] * 200, tokens_per_batch=10**6)
    assert len(sizes) > 1
    assert max(sizes) <= CPU_TOKENS * torch.get_num_threads() < sum(sizes)


def test_sides_and_instruction(tmp_path: Path) -> None:
    text = TextFormat(query="{instruction}\nQuery: {text}", document="text: {text}")
    encoder, plain = load_tiny(tmp_path, text=text), load_tiny(tmp_path)
    assert np.array_equal(encoder.encode(["a b"], "document"), plain.encode(["text: a b"]))
    assert np.array_equal(encoder.encode(["a b"], instruction="Find."), plain.encode(["Find.\nQuery: a b"]))


def test_instruction_out_of_the_pool(tmp_path: Path) -> None:
    """Equals a mean over the text's own states, taken by hand."""
    text = TextFormat(query="find:\n{text}")
    encoder = load_tiny(tmp_path, text=text, pool_instruction=False)
    ids = encoder.tokenizer.encode("find:\nlist files").ids
    num_before = len(encoder.tokenizer.encode("find:\n").ids)
    states = encoder.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = states[num_before:].mean(0).detach().numpy()
    assert np.abs(encoder.encode(["list files"], normalize=False)[0] - expected).max() < 1e-5


def test_limits_by_side(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path, text=TextFormat(max_query_tokens=4, max_document_tokens=8))
    words = "one two three four five six seven eight nine ten"
    cut = {n: encoder.tokenizer.decode(encoder.tokenizer.encode(words).ids[:n]) for n in (3, 4, 8)}
    for side, limit, n in (("query", None, 4), ("document", None, 8), ("document", 3, 3)):
        vectors = encoder.encode([words], side, max_tokens=limit)
        assert np.array_equal(vectors, encoder.encode([cut[n]], side, max_tokens=100))


@pytest.mark.parametrize("kernel", ["packed", "sdpa", "eager"])
def test_texts_without_tokens_are_zeros_and_disturb_nobody(tmp_path: Path, kernel: str) -> None:
    encoder = load_tiny(tmp_path, attention_kernel=kernel)
    vectors = encoder.encode(["", TEXTS[0]])
    assert not vectors[0].any()
    assert np.abs(vectors[1] - encoder.encode(TEXTS[:1])[0]).max() < 1e-6
    assert encoder.encode([]).shape == (0, 32)
    assert not encoder.encode(["", ""]).any()


def test_a_kept_layers_cut(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    encoder = load_encoder(Base(model=str(path), keep_first_layers=2), EncoderConfig(), TextFormat())
    assert len(encoder.backbone.layers) == encoder.backbone.config.num_hidden_layers == 2
    whole = load_encoder(Base(model=str(path)), EncoderConfig(), TextFormat())
    ids = torch.tensor([[300, 301, 302]])
    states = whole.backbone(input_ids=ids, output_hidden_states=True).hidden_states[2]
    assert torch.allclose(
        encoder.backbone(input_ids=ids).last_hidden_state, whole.backbone.norm(states), atol=1e-6
    )


def test_mode_is_left_as_it_was(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    for training in (True, False):
        encoder.train(training)
        encoder.encode(TEXTS)
        assert encoder.training == training


def test_float64_stays_float64(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path).double()
    batch = encoder.tokenize(encoder.format(TEXTS, "query"), 32)
    assert encoder(batch).dtype == torch.float64


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_recomputed_activations_give_the_same_gradient(tmp_path: Path, family: str, tuning: str) -> None:
    """To the bit, with dropout on."""
    gradients = []
    for recompute in (False, True):
        encoder = load_tiny(tmp_path, family)
        if tuning == "lora":
            add_lora(encoder, Lora(rank=4, dropout=0.3), seed=1)
        else:
            tune_all(encoder)
        num_calls = 0
        if recompute:
            encoder.checkpoint_activations()
        encoder.train()
        torch.manual_seed(3)
        layer = encoder.backbone.get_submodule("encoder.layer.1" if family in ENCODERS[:2] else "layers.1")
        inner = next(m for m in layer.modules() if isinstance(m, torch.nn.Linear))

        def count(*call: object) -> None:
            nonlocal num_calls
            num_calls += 1

        inner.register_forward_pre_hook(count)
        encoder(encoder.tokenize(encoder.format(TEXTS, "query"), 32)).square().sum().backward()
        assert num_calls == (2 if recompute else 1), "the premise: layers are computed again"
        gradients.append({name: p.grad for name, p in encoder.trainable() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_progress_is_shown_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = load_tiny(tmp_path)
    capsys.readouterr()
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, progress=True)
    assert "encode: 6 texts in" in capsys.readouterr().err
