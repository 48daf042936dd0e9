"""The networks' own promises: canvas and its modalities, centres of mass, tokens, words, the reader, the VQs.

Odd here: the Unigram trainer of `tokenizers` is not deterministic (its sums run in the order of a hash map), so nothing
here rests on what a piece looks like, and a run that goes on takes its tokenizer back from the checkpoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UVit2DModel, VQModel
from transformers import BertModel, PreTrainedTokenizerFast

from m3face import checkpoints, presets
from m3face.data.encoded import pictures
from m3face.faces import ATTRIBUTES, CLASSES, COUNT, PAIRS, Mention
from m3face.models import vq as tokens
from m3face.models.annotators import AttributeClassifier
from m3face.models.masked_transformer import MaskedTransformer, canvas, split_canvas
from m3face.models.text import ASKED, NEGATED, mention_targets, read_mentions, slot_states, train_tokenizer
from m3face.synthetic import make_sample
from m3face.tasks import words

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = presets.get("tiny").networks
SLOTS = TINY["tokenizer"]["slots"]


def built(component: str) -> Any:
    torch.manual_seed(0)
    return checkpoints.build(component, TINY[component]).eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------ masked transformer


def test_canvas_and_split_are_inverse_and_leave_the_mask_alone() -> None:
    maps, landmarks = torch.randint(512, (2, 16, 16)), torch.randint(256, (2, 16, 16))
    ids = canvas(maps, landmarks, map_codes=512, mask_id=768)
    assert ids.shape == (2, 16, 32)
    assert torch.equal(ids[:, :, 0::2], maps)
    assert torch.equal(ids[:, :, 1::2], landmarks + 512)
    one, other = split_canvas(ids, map_codes=512)
    assert torch.equal(one, maps)
    assert torch.equal(other, landmarks)
    hidden = canvas(maps, torch.full_like(landmarks, 768), map_codes=512, mask_id=768)
    assert bool((hidden[:, :, 1::2] == 768).all())


def test_the_other_modality_is_forbidden_and_cells_are_told_apart() -> None:
    network: MaskedTransformer = built("transformer")
    assert (network.mask_id, network.map_codes) == (768, 512)
    ids = torch.full((1, 16, 32), network.mask_id)
    states = torch.randn(1, SLOTS, 192)
    logits = network.logits(ids, states, states.mean(1))
    assert logits.shape == (1, 768, 16, 32)
    choice = logits.argmax(1)
    assert bool((choice[:, :, 0::2] < 512).all())
    assert bool((choice[:, :, 1::2] >= 512).all())
    probability = logits.softmax(1)
    assert float(probability[:, 512:, :, 0::2].max()) == 0
    assert float(probability[:, :512, :, 1::2].max()) == 0
    inner = logits[0, :512, 4:12, 8:24:2].flatten(1)
    assert float((inner[:, 1:] - inner[:, :1]).abs().max()) > 1e-3  # wholly masked, and yet no two cells alike


def test_without_modalities_it_is_the_stock_class() -> None:
    numbers = {k: v for k, v in TINY["transformer"].items() if k != "modality_codes"} | {"num_hidden_layers": 1}
    stock = UVit2DModel(**numbers).eval()
    ours = MaskedTransformer(**numbers).eval()
    ours.load_state_dict(stock.state_dict())
    inputs = (torch.randint(768, (2, 16, 16)), torch.randn(2, 16, 192), torch.randn(2, 192), torch.zeros(2, 5))
    with torch.no_grad():
        assert torch.equal(ours(*inputs), stock(*inputs))


# ---------------------------------------------------------------------------------------------------------- VQ


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 7), (3, 12), (15, 15)])
def test_soft_argmax_of_one_peak_is_its_place(row: int, column: int) -> None:
    maps = torch.full((1, 1, 16, 16), -1e4)
    maps[0, 0, row, column] = 1e4
    place = torch.tensor([column + 0.5, row + 0.5]) / 16
    assert torch.allclose(tokens.soft_argmax(maps)[0, 0], place * 1.2 - 0.1)


def test_soft_argmax_of_nothing_is_the_middle_and_reaches_beyond_the_border() -> None:
    assert torch.allclose(tokens.soft_argmax(torch.zeros(1, COUNT, 8, 8)), torch.full((1, COUNT, 2), 0.5))
    corner = torch.full((1, 1, 64, 64), -1e4)
    corner[..., 0, 0] = 1e4
    assert bool((tokens.soft_argmax(corner) < 0).all())


def test_maps_go_to_tokens_and_back() -> None:
    network = built("map_vq")
    maps = torch.from_numpy(np.stack([make_sample(0, i, size=128).label_map for i in range(2)]))
    ids = tokens.encode_maps(network, maps)
    assert ids.shape == (2, 16, 16)
    assert 0 <= int(ids.min()) <= int(ids.max()) < 512
    back = tokens.decode_maps(network, ids, size=128)
    assert (back.shape, back.dtype) == ((2, 128, 128), torch.uint8)
    assert int(back.max()) < len(CLASSES)
    assert torch.equal(tokens.encode_maps(network, maps[:1]), ids[:1])


def test_landmarks_go_to_tokens_and_back() -> None:
    network = built("landmark_vq")
    points = np.stack([make_sample(0, i, size=128).landmarks for i in range(2)])
    ids = tokens.encode_landmarks(network, points, size=128)
    assert ids.shape == (2, 16, 16)
    back = tokens.decode_landmarks(network, ids, size=256)
    assert back.shape == (2, COUNT, 2)
    assert bool(back.isfinite().all())
    assert torch.allclose(back, tokens.decode_landmarks(network, ids, size=128) * 2)


def test_a_three_channel_vq_sees_the_palette_and_is_snapped_back() -> None:
    network = VQModel(**{**TINY["map_vq"], "in_channels": 3, "out_channels": 3}).eval().requires_grad_(False)
    maps = torch.from_numpy(make_sample(0, 0, size=128).label_map[None])
    picture = tokens.map_picture(maps, channels=3, size=128)
    assert (picture.shape, float(picture.min()), float(picture.max())) == ((1, 3, 128, 128), 0.0, 1.0)
    ids = tokens.encode_maps(network, maps)
    assert ids.shape == (1, 16, 16)
    back = tokens.decode_maps(network, ids, size=128)
    assert (back.shape, back.dtype) == ((1, 128, 128), torch.uint8)
    assert int(back.max()) < len(CLASSES)

    class Perfect(torch.nn.Module):
        """Decodes to the palette drawing itself, a little off."""

        config = network.config

        def forward(self, *_args: Any) -> torch.Tensor:
            return tokens.map_picture(maps, channels=3, size=64) + 0.004

    network.decoder = Perfect()
    snapped = tokens.decode_maps(network, ids, size=64)
    small = tokens.map_picture(maps, channels=3, size=64)
    clean = (tokens.map_picture(maps, channels=19, size=64).max(1).values == 1)[0]  # pixels of one class
    assert small.shape[-1] == 64
    assert torch.equal(snapped[0][clean], maps[0, ::2, ::2][clean])


def test_one_hot_pictures_hold_shares() -> None:
    maps = torch.from_numpy(make_sample(0, 1, size=128).label_map[None])
    picture = tokens.map_picture(maps, channels=19, size=64)
    assert picture.shape == (1, 19, 64, 64)
    assert torch.allclose(picture.sum(1), torch.ones(1, 64, 64))


# -------------------------------------------------------------------------------------------------------- words


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_TOKENIZER_TEXTS", 1500)
        return train_tokenizer(words.TextEncoderTask._corpus(), **TINY["tokenizer"])


def test_sixteen_slots_come_first_and_long_texts_are_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    slots = tokenizer.convert_tokens_to_ids([f"[SLOT_{i}]" for i in range(SLOTS)])
    assert len(set(slots)) == SLOTS
    for text in ("", "a man", "word " * 500):
        ids = tokenizer(text, truncation=True).input_ids
        assert ids[:SLOTS] == slots
        assert not set(ids[SLOTS:]) & set(slots)
        assert len(ids) <= TINY["tokenizer"]["max_length"]
    assert len(tokenizer) <= TINY["text_encoder"]["vocab_size"]


@pytest.mark.parametrize("text", ["🙂🧔🏽‍♀️", "\uf8d0\uf8d6 \uf8e7", "ꙮ", "a\u0000b", "𝕬\u0301"])
def test_no_text_is_unknown(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(text).input_ids
    assert len(ids) > SLOTS
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("می‌خندد", "میخندد"),  # Persian with and without the zero-width non-joiner
        ("é", "e"),
        ("mögen", "mogen"),
        ("हँस", "हस"),
        ("が", "か"),
    ],
)
def test_joiners_and_accents_are_kept(one: str, other: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer(one).input_ids != tokenizer(other).input_ids


def test_case_and_width_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("A WOMAN").input_ids == tokenizer("a woman").input_ids
    assert tokenizer("ｗｏｍａｎ").input_ids == tokenizer("woman").input_ids


def test_states_are_the_same_alone_and_in_a_padded_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder: BertModel = built("text_encoder")
    texts = ["a man", "", "an old woman with very long gray hair, glasses, earrings, and a broad smile 🙂" * 2]
    together = slot_states(encoder, tokenizer, texts, slots=SLOTS)
    assert together.shape == (3, SLOTS, 192)
    for row, text in zip(together, texts, strict=True):
        alone = slot_states(encoder, tokenizer, [text], slots=SLOTS)[0]
        assert float((row - alone).abs().max()) < 1e-5
    assert float((together[0] - together[1]).abs().max()) > 1e-3


def test_mentions_go_to_targets_and_back() -> None:
    attribute = PAIRS[0][0]
    asked = Mention(*PAIRS[0])
    negated = Mention(*next(pair for pair in PAIRS if pair[0] != attribute), negated=True)
    target = mention_targets([asked, negated])
    assert target.tolist().count(ASKED) == target.tolist().count(NEGATED) == 1
    logits = torch.nn.functional.one_hot(target, 3).float()
    assert read_mentions(logits) == tuple(sorted([asked, negated]))
    assert read_mentions(torch.nn.functional.one_hot(mention_targets([]), 3).float()) == ()


def test_of_two_asked_values_of_one_attribute_the_surer_counts() -> None:
    attribute = next(a for a, _ in PAIRS if sum(pair[0] == a for pair in PAIRS) > 1)
    first, second = [index for index, pair in enumerate(PAIRS) if pair[0] == attribute][:2]
    logits = torch.nn.functional.one_hot(torch.zeros(len(PAIRS), dtype=torch.long), 3).float()
    logits[first, ASKED], logits[second, ASKED] = 2.0, 3.0
    assert read_mentions(logits) == (Mention(*PAIRS[second]),)


# ---------------------------------------------------------------------------------------------------------- VAE


def _renders(count: int) -> torch.Tensor:
    return pictures(np.stack([make_sample(0, i, size=128).image for i in range(count)]))


def test_a_started_vae_gives_the_principal_components_of_patches() -> None:
    vae, faces = built("vae"), _renders(4)
    vae.start(faces, torch.ones(4, 1, 128, 128))
    latents = vae.encode(faces).latent_dist.mean
    assert latents.shape == (4, TINY["vae"]["latent_channels"], 16, 16)
    side = vae.downscale
    patches = torch.nn.functional.unfold(faces, side, stride=side).transpose(1, 2).flatten(0, 1).numpy()
    apart = patches - patches.mean(0).reshape(3, -1).mean(1).repeat(side**2)
    values = np.linalg.eigvalsh(apart.T @ apart / len(apart))
    left_over = values[: -latents.shape[1]].sum() / patches.shape[1]  # no linear code of this size leaves less
    error = float((vae.decode(latents).sample - faces).square().mean())
    assert error == pytest.approx(left_over, rel=1e-3)
    deviation = latents.flatten(2).transpose(0, 1).flatten(1).square().mean(1).sqrt()
    expected = np.sqrt(np.sqrt(values[-latents.shape[1] :]))  # each scaled by the square root of its own deviation
    assert np.allclose(deviation.numpy(), expected, rtol=1e-3)


def test_a_started_vae_minds_heavy_pixels_first() -> None:
    vae, faces = built("vae"), _renders(4)
    heavy = torch.ones(4, 1, 128, 128)
    heavy[..., 48:72, 40:88] = 100.0

    def error() -> float:
        apart = (vae.decode(vae.encode(faces).latent_dist.mean).sample - faces).square()
        return float(apart[..., 48:72, 40:88].mean())

    vae.start(faces, torch.ones_like(heavy))
    plain = error()
    vae.start(faces, heavy)
    assert error() < 0.8 * plain


# --------------------------------------------------------------------------------------------------- annotators


@pytest.mark.parametrize("component", ["parser", "landmark_detector", "attribute_classifier", "identity_embedder"])
@pytest.mark.parametrize("size", [64, 128])
def test_annotators_answer_at_any_size_and_alone_as_in_a_batch(component: str, size: int) -> None:
    network = built(component)
    seen = torch.rand(3, 3, size, size) * 2 - 1
    answer = network(seen)
    shape = {
        "parser": (3, len(CLASSES), size, size),
        "landmark_detector": (3, COUNT, 2),
        "attribute_classifier": (3, sum(len(a.values) for a in ATTRIBUTES.values())),
        "identity_embedder": (3, 128),
    }
    assert answer.shape == shape[component]
    assert torch.allclose(network(seen[1:2]), answer[1:2], atol=1e-4)
    if component == "attribute_classifier":
        split = AttributeClassifier.split(answer)
        assert {name: logits.shape[1] for name, logits in split.items()} == {
            a.name: len(a.values) for a in ATTRIBUTES.values()
        }
