"""Pretrained towers from their published files: tokens, front end and features as the libraries that made them give them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from edge.bundle import ImageInput
from tests.train.tiny_towers import tiny_clap, tiny_open_clip
from train.torchvision_ops import make_torchvision_importable
from train.towers import TowerError, TowerPair, embed_observations, embed_texts, open_towers
from train.towers.clap_towers import ClapLogMel

make_torchvision_importable()

SENTENCES = ("a photo of Strix aluco.", "Tawny Owl", "the call of a Eurasian Eagle-Owl (Bubo bubo), 3 m away")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> TowerPair:
    return open_towers(tiny_open_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def clap(tmp_path_factory) -> TowerPair:
    return open_towers(tiny_clap(tmp_path_factory.mktemp("clap")))


def test_tokenizers_that_are_published_with_padding_do_not_pad(tmp_path):
    """A recorder takes every token for a word: padding would be read as part of the sentence."""
    source = tiny_clap(tmp_path)
    file = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_padding(length=77, pad_id=1)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(file))
    for pair in (open_towers(source), open_towers("starter")):
        given = Tokenizer.from_str(pair.tokenizer_json.decode())
        assert given.padding is None
        assert given.truncation is None
    file.write_text("{}")
    with pytest.raises(TowerError, match="expected a file of the tokenizers library, found: .*; fetch the"):
        open_towers(source)


@cache
def reference_tokenizer():
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


@pytest.mark.parametrize("kind", ["clip", "clap"])
def test_a_sentence_has_the_same_features_with_and_without_padding(kind, request):
    pair = request.getfixturevalue(kind)
    with torch.no_grad():
        for sentence in SENTENCES:
            ids, mask = pair.tokenize([sentence])
            n_more = pair.max_tokens - ids.shape[1]
            padded = torch.cat([ids, torch.full((1, n_more), pair.pad_id)], dim=1)
            padded_mask = torch.cat([mask, torch.zeros(1, n_more, dtype=torch.int64)], dim=1)
            torch.testing.assert_close(
                pair.text(ids, mask), pair.text(padded, padded_mask), rtol=0, atol=2e-6
            )
    together, alone = embed_texts(pair, SENTENCES), [embed_texts(pair, [each])[0] for each in SENTENCES]
    np.testing.assert_allclose(together, np.stack(alone), rtol=0, atol=2e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3  # and others differ


def test_clip_features_are_those_of_open_clip(clip):
    import open_clip

    model = open_clip.create_model(clip.source.removeprefix("open_clip:"), force_custom_text=True).eval()
    with torch.no_grad():
        texts = model.encode_text(reference_tokenizer()(list(SENTENCES))).numpy()
        pictures = model.encode_image(clip.example(3)).numpy()
    np.testing.assert_allclose(embed_texts(clip, SENTENCES), texts, rtol=0, atol=2e-6)
    np.testing.assert_allclose(embed_observations(clip, [clip.example(3)]), pictures, rtol=0, atol=2e-6)
    assert clip.input == ImageInput(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash-bicubic")
    assert (clip.n_features, clip.max_tokens, clip.pad_id) == (24, 77, 0)
    assert clip.temperature == pytest.approx(0.07, rel=1e-4)


def test_clap_features_are_those_of_transformers(clap):
    from transformers import ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(clap.source.removeprefix("clap:")).eval()
    extract = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    samples = clap.example(1)
    ids, mask = clap.tokenize(SENTENCES)
    with torch.no_grad():
        found = extract(samples[0].numpy(), sampling_rate=48_000, return_tensors="pt")
        sounds = model.get_audio_features(**found).pooler_output
        texts = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        # transformers normalises what it returns
        ours = torch.nn.functional.normalize(clap.observation(samples), dim=-1)
        torch.testing.assert_close(ours, torch.nn.functional.normalize(sounds, dim=-1), rtol=0, atol=1e-5)
        ours = torch.nn.functional.normalize(clap.text(ids, mask), dim=-1)
        torch.testing.assert_close(ours, torch.nn.functional.normalize(texts, dim=-1), rtol=0, atol=1e-6)
    assert (clap.n_features, clap.max_tokens, clap.pad_id) == (16, 77, 1)


@pytest.mark.parametrize(
    "text",
    [
        "a photo of Strix aluco.",
        "Animalia Chordata Aves Strigiformes Strigidae Strix aluco with common name Tawny Owl",
        "Käuzchen – «Größe» 北京 한국어 हिन्दी ไทย عربى",  # noqa: RUF001
        "cafe\u0301 CAFÉ ſ İstanbul STRASSE ẞ Σίσυφος ΣΑΣ ΟΔΟΣ",  # noqa: RUF001
        "Tawny Owl's call, it's we're I'll DON'T 'S",
        "“quotes” ‘single’ it’s Hawaiʻi ʼokina ‚low‛ …",  # noqa: RUF001
        "ﬁ ligature ﬂ Ǆ ĳ ŉ ｆｕｌｌ　ＡＢＣ １２ ｶﾅ",  # noqa: RUF001
        "R&amp;D &lt;b&gt; &amp;amp;amp; &#39;s &nbsp; &eacute; &copy; &quot;x&quot; &amp;lt;",
        "3rd 1,234 100% ½ ² Ⅷ H₂O ± °C × ÷",  # noqa: RUF001
        "naïve   spaces\t\ttabs\nnew\u00a0nbsp\u2028line  ",
        "\x00control\x07 soft\u00adhyphen zero\u200bwidth \ufeffbom",
        "emoji 🦉🦜 foo_bar __x__ #tag @you http://x.org/a?b=c",
        "",
        "   ",
        "word " * 100,
        "x" * 400,
        "Ы" * 200,
    ],
)
def test_token_ids_are_those_of_open_clip(clip, text):
    reference = reference_tokenizer()(text)[0]
    n_tokens = int(reference.argmax()) + 1  # the end mark has the highest id
    ids, mask = clip.tokenize([text])
    assert ids[0].tolist() == reference[:n_tokens].tolist()
    assert mask.sum() == n_tokens


def test_text_of_a_wrong_encoding_is_not_repaired(clip):
    """The known difference (train/towers/clip_tokenizer.py): ftfy guesses encodings from the whole sentence."""
    assert clip.tokenize(["schÃ¶n"])[0].tolist() != clip.tokenize(["schön"])[0].tolist()


@pytest.mark.parametrize("fmin", [0, 50])
def test_the_log_mel_is_that_of_the_feature_extractor(fmin):
    from transformers import ClapFeatureExtractor

    extract = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=fmin)
    seconds, random = np.arange(480_000) / 48_000, np.random.default_rng(0)
    noise = random.normal(size=len(seconds))
    sounds = {  # samples, largest difference in dB within 80 dB of the loudest
        "noise": (0.1 * noise, 1e-4),
        "quiet noise": (1e-4 * noise, 1e-4),
        "tone": (0.5 * np.sin(2 * np.pi * 1000 * seconds), 2e-3),
        "tone in noise": (0.5 * np.sin(2 * np.pi * 8000 * seconds) + 1e-3 * noise, 2e-3),
        "sweep": (0.9 * np.sin(2 * np.pi * (50 * seconds + 700 * seconds**2)), 4e-3),
        "silence": (0 * noise, 1e-5),
    }
    front_end = ClapLogMel(fmin_hz=fmin)
    for name, (samples, limit) in sounds.items():
        heard = samples.astype(np.float32)
        wanted = extract(heard, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0]
        found = front_end(torch.from_numpy(heard)[None])[0, 0].numpy()
        assert found.shape == wanted.shape == (1001, 64)
        loud = wanted > wanted.max() - 80
        assert np.abs(found - wanted)[loud].max() < limit, name
        assert np.abs(found - wanted).max() < 0.5, name  # near the floor


def test_no_frequency_above_the_highest_filter_is_computed():
    """A third of the front end's time and size, and not one number of what comes out."""
    short, whole = ClapLogMel(), ClapLogMel(fmax_hz=24_000.0)
    assert short.basis.shape == (2 * 299, 1, 1024)  # to 14 kHz
    assert whole.basis.shape == (2 * 513, 1, 1024)
    torch.testing.assert_close(short.basis[:299], whole.basis[:299], rtol=0, atol=0)
    torch.testing.assert_close(short.basis[299:], whole.basis[513:812], rtol=0, atol=0)


def test_a_saved_pair_is_opened_again_the_same(clip, clap, tmp_path):
    for pair, write in ((clip, tiny_open_clip), (clap, tiny_clap)):
        again = open_towers(write(tmp_path / pair.modality))
        np.testing.assert_array_equal(embed_texts(pair, SENTENCES), embed_texts(again, SENTENCES))
        example = [pair.example(1)]
        np.testing.assert_array_equal(embed_observations(pair, example), embed_observations(again, example))


def test_the_starter_is_a_pair_in_one_space():
    pair = open_towers("starter")
    texts = embed_texts(pair, ["a dog barking", "rain"])
    sounds = embed_observations(pair, [pair.example(2)])
    assert texts.shape == sounds.shape == (2, pair.n_features)
    assert pair.name == "starter"


def test_the_mel_bands_follow_the_models_own_processor(tmp_path):
    source = tiny_clap(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"frequency_min": 0, "frequency_max": 14000, "sampling_rate": 48000}))
    lowest = open_towers(source).observation.front_end.filters
    torch.testing.assert_close(lowest, ClapLogMel(fmin_hz=0).filters, rtol=0, atol=0)
    file.write_text(json.dumps({"sampling_rate": 32000}))
    with pytest.raises(TowerError, match="sampling_rate 48000, found 32000; not supported"):
        open_towers(source)
    file.unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": {"hop_length": 320}}))
    with pytest.raises(TowerError, match="hop_length 480, found 320"):
        open_towers(source)


def test_a_clap_folder_that_cannot_be_used(tmp_path):
    source = tiny_clap(tmp_path)
    config = tmp_path / "config.json"
    good = json.loads(config.read_text())
    fused = {**good, "audio_config": {**good["audio_config"], "enable_fusion": True}}
    for changed, message in (
        (fused, "expected an unfused model .* use an unfused one"),
        ({**good, "model_type": "clip"}, "expected the config of a clap model, found model_type 'clip'"),
        ([], "expected a JSON object in .*config.json, found list"),
    ):
        config.write_text(json.dumps(changed))
        with pytest.raises(TowerError, match=message):
            open_towers(source)
    config.write_text("{")
    with pytest.raises(TowerError, match=r"expected JSON in .*config\.json"):
        open_towers(source)
    config.write_text(json.dumps(good))
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    short = {name: value for name, value in state.items() if name != "text_projection.linear1.weight"}
    save_file(short, weights, metadata={"format": "pt"})
    with pytest.raises(TowerError, match=r"1 missing, such as text_projection\.linear1\.weight; fetch"):
        open_towers(source)
    weights.write_bytes(b"cut")
    with pytest.raises(TowerError, match="expected the weights of this config"):
        open_towers(source)
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (tmp_path / name).unlink()
        with pytest.raises(TowerError, match=f"{name}, found .*give the whole folder of the model"):
            open_towers(source)


def change_json(file: Path, part: str, **values: object) -> None:
    found = json.loads(file.read_text())
    target = found["model_cfg"]["text_cfg"] if part == "text_cfg" else found[part]
    target.update(values)
    file.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("text_cfg", {"no_causal_mask": True}, "expected a CLIP text tower .*, found TextTransformer"),
        ("preprocess_cfg", {"resize_mode": "longest"}, "found longest, bicubic; not supported"),
        ("text_cfg", {"width": 48, "heads": 3}, "expected a model that open_clip can open, found: Assertion"),
    ],
)
def test_an_open_clip_model_of_another_kind(tmp_path, part, values, message):
    source = tiny_open_clip(tmp_path)
    change_json(tmp_path / "open_clip_config.json", part, **values)
    with pytest.raises(TowerError, match=message):
        open_towers(source)


def test_an_open_clip_folder_that_cannot_be_used(tmp_path):
    source = tiny_open_clip(tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    state = load_file(weights)
    del state["visual.proj"]
    save_file(state, weights)
    with pytest.raises(TowerError, match="expected a model that open_clip can open"):
        open_towers(source)
    weights.unlink()
    with pytest.raises(TowerError, match=r"open_clip_model\.safetensors, found none; give the folder"):
        open_towers(source)


def test_a_vocabulary_of_another_tokenizer_is_refused(tmp_path, monkeypatch):
    import tests.train.tiny_towers as tiny

    text = {**tiny.CLIP_CONFIG["text_cfg"], "vocab_size": 500}
    monkeypatch.setattr(tiny, "CLIP_CONFIG", {**tiny.CLIP_CONFIG, "text_cfg": text})
    with pytest.raises(TowerError, match="expected CLIP's vocabulary of 49408 words, found 500"):
        open_towers(tiny_open_clip(tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bioclip-3", "expected bioclip, bioclip-2, .*, biolingual, starter, open_clip"),
        ("clap:", r"encoder 'clap:': expected bioclip"),
        ("open_clip:ViT-B-17", "a name of open_clip, found 'ViT-B-17'; it knows .*ViT-B-16"),
        ("open_clip:local-dir:/nowhere", r"expected /nowhere/open_clip_config\.json, found none"),
        ("clap:/nowhere", r"expected a folder with config\.json .*, found no such folder"),
    ],
)
def test_an_unknown_source_says_what_is_known(source, message):
    with pytest.raises(TowerError, match=message):
        open_towers(source)


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("bioclip-2", "give open_clip:local-dir:/folder"),
        ("open_clip:hf-hub:nobody/nothing", "give open_clip:local-dir:/folder"),
        ("biolingual", "give clap:/folder"),
        ("clap:nobody/nothing", "give clap:/folder"),
    ],
)
def test_without_a_network_the_error_says_what_to_give(source, instead, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TowerError, match=f"without a network, fetch .*{instead}"):
        open_towers(source)
