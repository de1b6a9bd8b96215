"""Controls that are made when a clip is drawn: the numbers of inference, whatever the batch, stored or not."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from ardrag.controls.build import CONTROLS, build_control
from ardrag.controls.control import Rows, Scene
from ardrag.rollout import seeded_generator
from ardrag.tracks.sampling import TrackArrays
from training.controls.maker import ControlMaker, control_text, give_control, keyframes_of, made_motion
from training.run.clips import FEATURES, pack_tracks, unpack_half, unpack_tracks
from training.run.data import LatentPool, load_latents, shape_generator
from training.settings.tracks import TrackConfig


SHOWN = tuple(name for name in CONTROLS if name != "masks")


@pytest.fixture(scope="module")
def rows(make_clips):
    return make_clips(4)


def maker(pipeline, name, **changes):
    pipeline.register_to_config(control=build_control(name).config())
    return ControlMaker(pipeline, TrackConfig(**changes))


@pytest.fixture
def own_pipeline(make_pipeline, outline):
    pipeline = make_pipeline()
    pipeline.register_modules(outline=outline)
    return pipeline


def pictured(row):
    return torch.from_numpy(np.array(row["reference"])).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_what_a_stream_shows(own_pipeline, rows, name):
    """Of a clip whose tracks are all there from the start: later ones take what a stream has not made yet."""
    row, vae = rows[1], own_pipeline.vae
    tracks = unpack_tracks(row)
    begun = tracks._replace(visible=np.ones_like(tracks.visible))
    row = {**row, **pack_tracks(begun)}
    made = maker(own_pipeline, name)
    found = made(row, seeded_generator(3))
    first = unpack_half(row["latents"], row["latent_shape"])[None, :, :1]
    scene = Scene(pictured(row), first, outline=own_pipeline.outline)
    shown = Rows(unpack_tracks(row), (None,) * begun.xy.shape[1])
    if name == "heat":  # it is stored
        assert torch.equal(found, unpack_half(row["motion"], row["latent_shape"]))
        found = made_motion(own_pipeline.control, vae, row, shown.arrays)
    if name != "track_ids":  # whose numbers are drawn by lot
        stream, look = own_pipeline.control.stream(vae, scene), lambda: scene.picture
        wanted = torch.cat([stream.next(shown.part(0, 1), look), stream.next(shown.part(1, len(shown)), look)], dim=2)
        torch.testing.assert_close(found, wanted[0], rtol=1e-4, atol=1e-4)
    assert found.shape[0] == own_pipeline.control.width(4) and found.shape[1:] == (4, 4, 4)


@torch.no_grad()
def test_a_late_track_carries_what_is_there_then(own_pipeline, rows):
    row, vae = dict(rows[0]), own_pipeline.vae
    xy = np.full((13, 1, 2), 0.5, np.float32)
    late = TrackArrays(xy, np.arange(13)[:, None] >= 6, np.ones((13, 1), np.float32))
    latents = unpack_half(row["latents"], row["latent_shape"])[None]
    assert keyframes_of(vae, latents, late._replace(visible=late.visible | True)) is None
    frames = keyframes_of(vae, latents, late)
    assert frames.shape == (4, 3, 32, 32)
    scene = Scene(pictured(row), latents[:, :, :1])
    wanted = build_control("carried").clip(vae, scene, Rows(late, (None,)), frames)
    first = build_control("carried").clip(vae, scene, Rows(late, (None,)))
    found = made_motion(build_control("carried"), vae, row, late)
    assert torch.equal(found, wanted[0]) and not torch.allclose(found, first[0], atol=1e-3)


def test_what_knows_outlines_comes_with_the_control(make_pipeline, outline, tmp_path):
    outline.save_pretrained(tmp_path)
    pipeline = make_pipeline()
    give_control(pipeline, "cutout", str(tmp_path))
    assert pipeline.control == build_control("cutout")
    assert all(torch.equal(a, b) for a, b in zip(pipeline.outline.parameters(), outline.parameters(), strict=True))
    given = pipeline.outline
    give_control(pipeline, "collage")
    assert pipeline.outline is given


@pytest.mark.parametrize("name", ["carried", "track_ids"])
def test_batches_and_resumed_runs_are_shown_the_same(own_pipeline, rows, name):
    pool = LatentPool(rows, 4)
    pool.show(maker(own_pipeline, name, touch_force=0.2, late_tracks=0.5, track_noise=6))
    generators = [seeded_generator(0, 7, clip) for clip in range(3)]
    whole = pool.draw(generators, shape_generator(0, 7))
    again = LatentPool(rows, 4)
    again.show(maker(own_pipeline, name, touch_force=0.2, late_tracks=0.5, track_noise=6))
    alone = [again.draw([seeded_generator(0, 7, clip)], shape_generator(0, 7)) for clip in range(3)]
    assert torch.equal(whole.motion, torch.cat([batch.motion for batch in alone]))
    other = pool.draw([seeded_generator(0, 8, clip) for clip in range(3)], shape_generator(0, 8))
    assert not torch.equal(whole.motion, other.motion)


def test_what_is_shown_draws_nothing_from_the_clip_s_generator(own_pipeline, rows):
    """So that noise and noise levels are the same whatever is shown."""
    generators = [seeded_generator(0, clip) for clip in range(2)]
    states = []
    for name in ("heat", "track_ids"):
        generator = seeded_generator(0, 0)
        maker(own_pipeline, name, dropped_tracks=0.5)(rows[0], generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], generators[0].get_state())


def test_stored_control_is_taken_only_where_it_is_the_same(own_pipeline, rows):
    row = rows[0]
    stored = unpack_half(row["motion"], row["latent_shape"])
    assert torch.equal(maker(own_pipeline, "heat")(row, seeded_generator(0)), stored)
    for name, changes in (("coloured", {}), ("heat", {"touch_force": 0.5})):
        assert not torch.allclose(maker(own_pipeline, name, **changes)(row, seeded_generator(0)), stored)
    assert control_text(build_control({"name": "carried", "radius": 0.2})) != control_text(build_control("carried"))


def test_rows_of_before_say_nothing_of_their_control(own_pipeline, rows, tmp_path, caplog):
    rows.remove_columns(["control"]).save_to_disk(tmp_path / "old")
    dataset = load_latents([str(tmp_path / "old")])
    assert dataset["control"][:] == [""] * 4
    stored = unpack_half(rows[0]["motion"], rows[0]["latent_shape"])
    made = maker(own_pipeline, "heat")
    assert not torch.allclose(made(dataset[0], seeded_generator(0)), stored)
    made(dataset[1], seeded_generator(0))
    (record,) = caplog.records  # once, and only where storing it would help
    assert "training.precompute --clips FOLDER --control heat" in record.getMessage()
    maker(own_pipeline, "heat", touch_force=0.5)(dataset[0], seeded_generator(0))
    maker(own_pipeline, "heat")({**dataset[0], "motion": b""}, seeded_generator(0))
    maker(own_pipeline, "coloured")(rows[0], seeded_generator(0))
    assert caplog.records == [record]


def test_clips_without_a_control_are_named_where_nobody_makes_one(rows):
    bare = Dataset.from_list([{**row, "control": "", "motion": b""} for row in rows], features=FEATURES)
    with pytest.raises(ValueError, match="data: clip 4x32x32-. has no control stored; run training.precompute with"):
        LatentPool(bare, 4).draw([seeded_generator(0)], shape_generator(0, 0))


@pytest.mark.parametrize("name", ["carried", "track_ids", "fused_flow"])
def test_a_control_is_given_to_a_plain_model(own_pipeline, name):
    before = {key: value.clone() for key, value in own_pipeline.transformer.state_dict().items()}
    give_control(own_pipeline, name)
    transformer = own_pipeline.transformer
    assert own_pipeline.control.name == name
    assert transformer.config.control_module == own_pipeline.control.module()
    assert transformer.config.input_layout["motion"] == own_pipeline.control.width(4)
    after = transformer.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key != "patch_embedding.weight")
    layout = [4, 4, 4]
    latents, motion, image = before["patch_embedding.weight"].split(layout, dim=1)
    kept = after["patch_embedding.weight"]
    if name == "fused_flow":
        assert torch.equal(kept, torch.cat([latents, image], dim=1))
    elif name == "carried":
        assert torch.equal(kept, torch.cat([latents, motion, image], dim=1))
    else:
        assert torch.equal(kept[:, :4], latents) and torch.equal(kept[:, -4:], image)


def test_two_modules_do_not_go_together(own_pipeline):
    give_control(own_pipeline, "track_ids")
    with pytest.raises(
        ValueError, match="control: init_from has track_ids built into its transformer, which heat does"
    ):
        give_control(own_pipeline, "heat")
