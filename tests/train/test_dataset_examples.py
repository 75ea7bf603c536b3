"""Labelled items as the tower takes them, and the presets and the command that train on them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from edge.bundle import AudioInput, ImageInput
from edge.errors import ConfigError
from edge.images import pixels_of
from train.__main__ import main
from train.data import DataError
from train.dataset_examples import DatasetExamples, audio_view, picture_view
from train.hash_settings import hash_settings_from, read_hash_preset

WINDOW = AudioInput(100, 50)
SQUARE = ImageInput(8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "shortest-side-bicubic-centre-crop")


class Content:
    """A file that is not there."""

    def __init__(self, name: str) -> None:
        self.name, self.content = name, b"sound"

    def read(self) -> bytes:
        return self.content


def data_set(*species: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(
        name="set",
        modality="audio",
        items=[
            SimpleNamespace(species=each, content=Content(f"/folder/{i}.wav"), start_s=None, duration_s=None)
            for i, each in enumerate(species)
        ],
        species={key: key for key in "abc"},
    )


def test_items_of_one_species_train_and_sentences_follow_their_class():
    examples = DatasetExamples(
        data_set(("c",), ("a", "b"), (), ("a",), ("c",)), WINDOW, lambda s: (s, f"a {s}", s)
    )
    assert examples.classes.tolist() == [1, 0, 1]
    assert examples.sentences == ("a", "a a", "c", "a c")  # one of two equal wordings
    assert examples.sentence_classes.tolist() == [0, 0, 1, 1]


def test_the_name_follows_the_files_and_what_is_in_them():
    first, same, named, part, filled = (data_set(*(("a",) for _ in range(20))) for _ in range(5))
    same.items[0].content.name = "/elsewhere/0.wav"
    named.items[0].content.name = "/folder/70.wav"
    part.items[3].duration_s = 2.0
    for item in filled.items:
        item.content.content = b"other sound"
    names = [DatasetExamples(s, WINDOW, lambda s: (s,)).name for s in (first, same, named, part, filled)]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def test_a_data_set_that_cannot_train_is_refused():
    with pytest.raises(DataError, match="expected items of one species each, found none in 1"):
        DatasetExamples(data_set(("a", "b")), WINDOW, lambda s: (s,))
    with pytest.raises(ConfigError, match="expected image for this encoder, found audio"):
        DatasetExamples(data_set(("a",)), SQUARE, lambda s: (s,))


def test_a_window_is_the_first_as_it_is_and_random_otherwise():
    samples = np.linspace(-0.5, 0.5, 130, dtype=np.float32)
    np.testing.assert_array_equal(audio_view(samples, WINDOW, None), samples[:50])
    short = audio_view(samples[:30], WINDOW, None)
    np.testing.assert_array_equal(short, np.concatenate([samples[:30], samples[:20]]))
    drawn = [audio_view(samples, WINDOW, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert all(view.dtype == torch.float32 and len(view) == 50 for view in drawn)


def test_a_window_never_leaves_full_scale():
    loud = np.ones(50, dtype=np.float32)
    assert max(float(audio_view(loud, WINDOW, np.random.default_rng(s)).max()) for s in range(40)) <= 1.0


def test_a_picture_keeps_its_centre_and_its_shape():
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 255, 0), (10, 0, 30, 20))  # the square in the middle
    found = picture_view(picture, SQUARE, None) * 0.2 + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    assert found.shape == (3, 8, 8)
    assert found[1, :, 2:6].min() > 0.95
    squashed = ImageInput(8, SQUARE.mean, SQUARE.std, "squash-bicubic")
    left = picture_view(picture, squashed, None)[:, :, 0] * 0.2 + torch.tensor([0.5, 0.4, 0.3])[:, None]
    assert left[0].min() > 0.95


def test_a_random_view_is_a_part_of_the_picture_the_same_for_the_same_draw():
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    drawn = [picture_view(picture, SQUARE, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_picture_as_it_is_is_what_the_recorder_takes():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (31, 23, 3), dtype=np.uint8))
    np.testing.assert_array_equal(picture_view(picture, SQUARE, None), pixels_of(picture, SQUARE))


@pytest.mark.parametrize(
    "name", ["bioclip", "bioclip_2", "bioclip_2_5", "biocap", "biolingual", "starter_hash"]
)
def test_presets_load(name):
    settings = read_hash_preset(name)
    assert settings.name == name
    assert settings.n_bits == 256


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="unknown key 'rang'"):
        hash_settings_from({"name": "x", "encoder": "starter", "lora": {"rang": 2}}, "x.toml")
    with pytest.raises(ConfigError, match="expected the key encoder"):
        hash_settings_from({"name": "x"}, "x.toml")
    with pytest.raises(ConfigError, match="presets here: biocap, bioclip"):
        read_hash_preset("nothing")


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("schedule", "batch", "12", r"batch: expected a value like 256, found '12'"),
        ("schedule", "batch", 1, r"batch: expected 2 or more, found 1"),
        ("schedule", "bf16", 1, r"bf16: expected a value like True, found 1"),
        ("schedule", "rate", float("nan"), r"rate: expected a value like 0\.001, found nan"),
        ("schedule", "epochs", -1, r"epochs: expected 0 or more, found -1"),
        ("schedule", "checkpoint_every", 0, r"checkpoint_every: expected 1 or more, found 0"),
        ("schedule", "part", -3, r"part: expected 0 or more, found -3"),
        ("lora", "rank", 0, r"rank: expected 1 or more, found 0"),
        ("lora", "dropout", 1.0, r"dropout: expected less than 1, found 1\.0"),
        ("objective", "diversity", "a", r"diversity: expected a value like 0\.2, found 'a'"),
        ("objective", "prefixes", [64, 128], r"prefixes: expected fewer bits than the 128 of the code, found 128"),
        ("", "prompts", "scientific", r"prompts: expected a list, found 'scientific'"),
        ("", "n_bits", 17, r"n_bits: expected 16, 32, 64, 128, 192, 256, found 17"),
        ("", "large_head", "yes", r"large_head: expected a value like False, found 'yes'"),
        ("", "name", 3, r"name: expected text, found 3"),
    ],
)  # fmt: skip
def test_a_value_that_no_run_can_have_is_told_before_it_begins(section, key, value, said):
    values = {"name": "x", "encoder": "starter", "n_bits": 128}
    if section:
        values[section] = {key: value}
    else:
        values[key] = value
    with pytest.raises(ConfigError, match=r"x\.toml.*" + said):
        hash_settings_from(values, "x.toml")


def test_whole_numbers_stand_for_decimals_and_a_run_has_epochs():
    values = {"name": "x", "encoder": "starter", "lora": {"alpha": 8}, "schedule": {"rate": 1}}
    assert hash_settings_from(values, "x.toml").lora.alpha == 8
    none = {**values, "schedule": {"epochs": 0, "frozen_epochs": 0}}
    with pytest.raises(ConfigError, match="expected frozen_epochs or epochs of 1 or more, found 0 of both"):
        hash_settings_from(none, "x.toml")


def test_the_command_wants_a_data_set(tmp_path, capsys):
    assert main(["hash", "--preset", "bioclip", "--out", str(tmp_path)]) == 2
    assert "give --dataset" in capsys.readouterr().err
