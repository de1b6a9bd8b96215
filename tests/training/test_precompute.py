"""What `training.precompute` writes is what the VAE says of the clips that were asked for."""

import numpy as np
import pytest
import torch

from ardrag.controls.build import build_control
from ardrag.controls.heat import heatmap
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.schema import GROUND
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import make_clip
from training import precompute
from training.controls.maker import control_text, made_motion
from training.precompute import PrecomputeConfig, RawClip, batches, touched
from training.run.clips import unpack_half, unpack_rows, unpack_tracks
from training.run.data import load_latents


@pytest.fixture
def folder(pipeline, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pipeline.vae.save_pretrained(tmp_path / "vae")
    return tmp_path


def configure(folder, name="latents", **changes):
    return PrecomputeConfig(str(folder / "vae"), str(folder / name), **{"num_clips": 2, "num_frames": 5, **changes})


def latents_of(config, name="latents"):
    return [unpack_half(row[name], row["latent_shape"]) for row in load_latents([config.output_dir])]


def test_precomputed_latents_are_the_vae_s(pipeline, folder):
    """Also when the weights at the same place have changed since the last time."""
    vae, stream, config = pipeline.vae, StreamingVAE(pipeline.vae), configure(folder)
    seen = []
    for scale in (1.0, 2.0):
        changed = type(vae).from_config(vae.config)
        changed.load_state_dict({name: scale * value for name, value in vae.state_dict().items()})
        changed.save_pretrained(config.vae)
        precompute.main(config)
        seen.append(load_latents([config.output_dir])[:])
    assert seen[0]["latents"] != seen[1]["latents"]
    for index in range(2):
        clip = make_clip("train", index, 5)
        video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        heat = (heatmap(clip_tracks(clip), 128, 128) * 2 - 1).expand(1, 3, -1, -1, -1)
        row = {name: seen[0][name][index] for name in seen[0]}
        for name, pixels in (("latents", video), ("motion", heat)):
            latent = unpack_half(row[name], row["latent_shape"])
            torch.testing.assert_close(latent, stream.encode(pixels)[0], rtol=1e-3, atol=1e-3)
        assert np.array_equal(row["reference"], clip.frames[0]) and row["caption"] == clip.caption
        assert (row["id"], row["frames"], row["fps"]) == (f"train-{index}", 5, 16.0)
        arrays, found = clip_tracks(clip).to_array(), unpack_tracks(row)
        assert np.array_equal(found.visible, arrays.visible) and (found.force == 1).all()
        assert np.abs(found.xy - arrays.xy)[arrays.visible].max() < 1e-5


def test_only_clips_of_the_categories_are_kept(folder):
    settings = {"start": 3, "num_clips": 12}
    kept = [clip for clip in (make_clip("train", index, 5) for index in range(3, 15)) if "fast" in clip.categories]
    assert 0 < len(kept) < 12
    plain = configure(folder, "hard", **settings, categories=["fast"])
    precompute.main(plain)
    assert load_latents([plain.output_dir])["caption"][:] == [clip.caption for clip in kept]
    coloured = configure(folder, "coloured", **settings, categories=["fast"], control="coloured")
    precompute.main(coloured)
    pairs = zip(latents_of(plain, "motion"), latents_of(coloured, "motion"), strict=True)
    assert [not torch.equal(one, other) for one, other in pairs] == [len(clip.movers) > 1 for clip in kept]
    with pytest.raises(ValueError, match="categories: none of clips 3 to 14 of train is upside down"):
        precompute.main(configure(folder, **settings, categories=["upside down"]))


def test_pictures_need_not_be_square(folder):
    config = configure(folder, height=96, width=160, num_clips=1)
    precompute.main(config)
    (row,) = load_latents([config.output_dir])
    assert (row["height"], row["width"], row["latent_shape"]) == (96, 160, [4, 2, 12, 20])
    assert np.array_equal(row["reference"], make_clip("train", 0, 5, 96, 160).frames[0])


def raw_clip(name="a"):
    clip = make_clip("train", 1, 33)
    return RawClip(name, "", clip.caption, clip.frames, clip_tracks(clip), 16.0)


def test_touch_changes_smoothly_and_is_the_clip_s_own():
    clip = raw_clip()
    pressed, again, other = (touched(raw_clip(name), 0.3).tracks.to_array() for name in ("a", "a", "b"))
    force = pressed.force
    assert (
        force.min() >= 0.3 and force.max() <= 1 and np.ptp(force) > 0.1 and np.abs(np.diff(force, axis=0)).max() < 0.1
    )
    assert np.array_equal(force, again.force) and not np.array_equal(force, other.force)
    assert np.array_equal(pressed.xy, clip.tracks.to_array().xy) and touched(clip, 1.0) is clip
    with pytest.raises(ValueError, match="touch_force: -0.1 is no share"):
        PrecomputeConfig("vae", "out", touch_force=-0.1)


def test_batches_have_one_shape_and_lose_no_clip():
    shapes = [(5, 8, 8, 3), (5, 8, 16, 3), (5, 8, 8, 3), (5, 8, 8, 3), (9, 8, 8, 3)]
    clips = [RawClip(str(i), "", "", np.zeros(s, np.uint8), None, 16.0) for i, s in enumerate(shapes)]
    names = [[clip.name for clip in batch] for batch in batches(iter(clips), 2, lambda clip: clip.frames.shape)]
    assert names == [["0", "2"], ["1"], ["3"], ["4"]]


def test_photo_world_is_encoded_with_its_forces(folder, picture_folder, monkeypatch):
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    config = configure(folder, world="photos", control="carried", height=64, width=64, num_clips=8, start=20)
    precompute.main(config)
    rows = load_latents([config.output_dir])
    assert set(rows["source"]) == {"Photo World"} and len(rows) == 8
    by_name = {row["id"]: row for row in rows}
    for index in range(20, 28):
        clip = make_photo_clip("train", index, 5, 64, 64)
        row = by_name[f"train-{index}"]
        assert np.array_equal(row["reference"], clip.frames[0]) and row["caption"] == clip.caption
        assert np.allclose(unpack_tracks(row).force, clip.force, atol=2e-3)
        assert unpack_rows(row).brushes == pytest.approx(clip_tracks(clip).brushes())
    with_pins = [row for row in rows if GROUND in row["brushes"]]
    assert with_pins and all(row["brushes"].count(GROUND) == 2 for row in with_pins)
    pressed = configure(folder, "light", world="photos", height=64, width=64, num_clips=8, start=20, touch_force=0.5)
    precompute.main(pressed)
    assert [row["brushes"] for row in load_latents([pressed.output_dir])] == list(rows["brushes"])


def test_an_unknown_world_is_refused():
    with pytest.raises(ValueError, match="world: 'moon' is unknown; use sprites, photos or small"):
        PrecomputeConfig("vae", "out", world="moon")


def test_the_small_world_is_encoded_with_its_labels(folder):
    config = configure(folder, world="small:label_noise=6,late_start=4,passers_by=1", height=64, width=64)
    precompute.main(config)
    rows = load_latents([config.output_dir])
    world = SmallWorld(label_noise=6, late_start=4, passers_by=1)
    for index, row in enumerate(rows):
        clip, found = world.make("train", index, 5), unpack_tracks(row)
        assert np.array_equal(row["reference"], clip.frames[0])
        assert row["source"] == "the small world with label_noise=6,late_start=4,passers_by=1"
        shown = clip.labelled & (clip.labels >= 0).all(-1) & (clip.labels < 64).all(-1)
        assert np.abs(found.xy * 64 - clip.labels)[shown].max() < 0.01
        assert np.array_equal(found.visible & shown, shown)


def test_controls_of_encoded_clips_are_made_anew(folder, pipeline):
    """What a run that draws them would make, and the clips themselves as they were."""
    bare = configure(folder, "bare", control="none", num_clips=3)
    precompute.main(bare)
    carried = configure(folder, "carried", clips=bare.output_dir, control="carried", batch_size=2)
    precompute.main(carried)
    before, after = (load_latents([config.output_dir]) for config in (bare, carried))
    assert set(before["motion"]) == {b""} and set(before["control"]) == {""}
    control = build_control("carried")
    by_name = {row["id"]: row for row in after}
    assert len(by_name) == 3 and set(after["control"]) == {control_text(control)}
    for row in before:
        made = made_motion(control, pipeline.vae, row, unpack_tracks(row))
        motion = unpack_half(by_name[row["id"]].pop("motion"), row["latent_shape"])
        torch.testing.assert_close(motion, made, rtol=1e-3, atol=1e-3)
        assert all(by_name[row["id"]][name] == row[name] for name in ("latents", "tracks", "force", "caption"))
    pressed = configure(folder, "pressed", clips=bare.output_dir, touch_force=0.2)
    precompute.main(pressed)
    assert all(unpack_tracks(row).force.min() < 1 for row in load_latents([pressed.output_dir]))


def test_outlines_are_those_of_the_network_that_is_named(folder, pipeline, outline, tmp_path):
    """New clips and encoded ones: both are what a run that draws them would make."""
    outline.save_pretrained(tmp_path)
    control = {"control": "cutout", "outline": str(tmp_path), "num_clips": 2}
    bare, new = configure(folder, "plain", control="none", num_clips=2), configure(folder, "cutout", **control)
    for config in (bare, new):
        precompute.main(config)
    anew = configure(folder, "anew", clips=bare.output_dir, **control)
    precompute.main(anew)
    shown = build_control("cutout")
    for one, other in zip(load_latents([new.output_dir]), load_latents([anew.output_dir]), strict=True):
        assert one["control"] == other["control"] == control_text(shown)
        made = made_motion(shown, pipeline.vae, one, unpack_tracks(one), outline=outline)
        for row in (one, other):
            motion = unpack_half(row["motion"], row["latent_shape"])
            torch.testing.assert_close(motion, made, rtol=2e-3, atol=2e-3)
    with pytest.raises(ValueError, match="outline: the control cutout asks a network"):
        precompute.main(configure(folder, "none", control="cutout"))


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(ValueError, match="push_to_hub: 'clips' is no owner/name of a dataset repository"):
        PrecomputeConfig("vae", "out", push_to_hub="clips")
    with pytest.raises(
        ValueError, match="control: copied is no video that a VAE encodes, training makes it as it goes"
    ):
        PrecomputeConfig("vae", "out", control="copied")
    with pytest.raises(ValueError, match="control: with clips their control is made anew; name one"):
        PrecomputeConfig("vae", "out", clips="clips", control="none")
