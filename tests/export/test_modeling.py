"""The model of an exported folder, from its source in this package: padding, caches and gradients."""

from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from posbench.config.schema import ExtensionSettings
from posbench.export.configuration_posbench import PosbenchConfig
from posbench.export.folder import write_model
from posbench.export.modeling_posbench import PosbenchForCausalLM
from posbench.export.source_model import SourceModel
from posbench.model.gpt import GPT, Size, build_scheme

SIZE = Size(n_layers=2, d_model=32, n_heads=4)
ROPE = {"_target_": "posbench.schemes.rope.RoPE"}
# Its logits depend on the number of tokens of the whole text.
BY_LENGTH = {"_target_": "posbench.extensions.dynamic_ntk.DynamicNTK"}


@pytest.fixture(params=["rope", "by length"])
def model(request) -> PosbenchForCausalLM:
    torch.manual_seed(0)
    extension, length = (None, None) if request.param == "rope" else (BY_LENGTH, 24)
    config = PosbenchConfig(asdict(SIZE.architecture), ROPE, extension, 16, length, vocab_size=50)
    return PosbenchForCausalLM(config).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_padding_on_either_side_changes_nothing(model):
    text = ids(3, 20)
    lengths = [20, 13, 7]
    alone = [model(row[None, :length]).logits[0] for row, length in zip(text, lengths, strict=True)]
    for side in ("left", "right"):
        padded, mask = torch.zeros_like(text), torch.zeros_like(text)
        places = [slice(20 - length, 20) if side == "left" else slice(length) for length in lengths]
        for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
            padded[row, place], mask[row, place] = text[row, :length], 1
        logits = model(padded, attention_mask=mask).logits
        for row, place in enumerate(places):
            torch.testing.assert_close(logits[row, place], alone[row], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_cache_in_pieces(model):
    """Pieces of several tokens, past the declared length too, equal one pass over all tokens."""
    text = ids(2, 30)
    cache, pieces = None, []
    for start, stop in ((0, 9), (9, 10), (10, 22), (22, 30)):
        out = model(text[:, start:stop], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        whole = model(text[:, :stop]).logits[:, start:]
        torch.testing.assert_close(out.logits, whole, rtol=0, atol=1e-5)
        pieces.append(out.logits)
    assert cache.get_seq_length() == 30


@torch.no_grad()
def test_beams_keep_their_own_caches(model):
    prompt, mask = ids(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[1, :5] = 0
    options = {"num_beams": 3, "do_sample": False, "max_new_tokens": 5, "pad_token_id": 0}
    cached = model.generate(prompt, attention_mask=mask, **options)
    assert cached.equal(model.generate(prompt, attention_mask=mask, use_cache=False, **options))


def test_it_can_be_trained_on_padded_batches(model):
    text = ids(2, 12)
    mask = torch.ones_like(text)
    mask[0, 8:] = 0
    labels = text.masked_fill(mask == 0, -100)
    loss = model(text, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_cannot_be_read_is_refused(model):
    text, mask = ids(1, 6), torch.tensor([[1, 0, 1, 1, 1, 1]])
    with pytest.raises(ValueError, match="between tokens"):
        model(text, attention_mask=mask)
    with pytest.raises(ValueError, match="padding_side='left'"):
        model(text, attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]]), use_cache=True)
    other = DynamicCache()
    model(text, past_key_values=other)
    other.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    with pytest.raises(ValueError, match="of another model"):
        model(text, past_key_values=other)


def test_options_without_effect_are_refused(model):
    """Fault: position_ids of packed texts were ignored, and output_hidden_states=True returned None."""
    text, packed = ids(1, 6), torch.tensor([[0, 1, 2, 0, 1, 2]])
    with pytest.raises(ValueError, match=r"^position_ids: positions follow from attention_mask[^\n]*$"):
        model(text, position_ids=packed)
    for name in ("output_hidden_states", "output_attentions"):
        with pytest.raises(ValueError, match=rf"^{name}=True: this model returns logits only[^\n]*$"):
            model(text, **{name: True})
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    expected = model(text, attention_mask=mask).logits
    own = torch.tensor([[1, 1, 0, 1, 2, 3]])  # as generate() of transformers makes them
    assert model(text, attention_mask=mask, position_ids=own).logits.equal(expected)
    first = model(text[:, :4], use_cache=True)
    rest = {"past_key_values": first.past_key_values, "use_cache": True}
    model(text[:, 4:], position_ids=torch.tensor([[4, 5]]), **rest)


def test_two_folders_of_one_name(tmp_path):
    """In one process, transformers ran the second with the Python files of the first, if their configurations were alike."""
    for place, target in (("a", "posbench.schemes.nope.NoPE"), ("b", "posbench.schemes.alibi.ALiBi")):
        scheme = {"_target_": target}
        model = GPT(SIZE, 50, build_scheme(scheme, SIZE.shape(16), 0), seed=0).eval()
        folder = tmp_path / place / "out"
        folder.mkdir(parents=True)
        write_model(SourceModel("", "", model, scheme, ExtensionSettings(), None, 16), folder, bos=0)
        loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        with torch.no_grad():
            assert loaded(ids(1, 20)).logits.equal(model.head(model(ids(1, 20))[0]))
