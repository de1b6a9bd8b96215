"""Sprite World: the same clip for the same number, splits apart, and positions that are what the pixels show."""

import numpy as np
import pytest

from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprite_drawing import BACKGROUNDS, COLOURS, OUTLINES, draw_background, draw_sprite
from ardrag.worlds.sprites import (
    FASTEST_STEP,
    HELD_OUT_SHAPES,
    SPLITS,
    SPRITE_SIZES,
    TRAINING_SHAPES,
    Sprite,
    _alpha_at,
    _visibility,
    build_dataset,
    make_clip,
    render,
    sample_path,
)


COUNT = 40


@pytest.fixture(scope="module")
def clips():
    """Some 9-frame clips of each split."""
    return {split: [make_clip(split, index, 9) for index in range(COUNT)] for split in SPLITS}


def arrays(clip):
    return clip.frames, clip.background, clip.xy, clip.visible, clip.untouched


def test_same_number_same_clip(clips):
    for split in SPLITS:
        again = make_clip(split, 3, 9)
        assert all(np.array_equal(a, b) for a, b in zip(arrays(again), arrays(clips[split][3]), strict=True))
        assert (again.caption, again.categories) == (clips[split][3].caption, clips[split][3].categories)


def test_no_two_clips_are_alike(clips):
    seen = {clip.frames.tobytes() for part in clips.values() for clip in part}
    assert len(seen) == len(SPLITS) * COUNT


def test_global_random_state_is_left_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    make_clip("train", 0, 5)
    assert np.array_equal(np.random.get_state()[1], before)


def test_held_out_shapes_are_in_the_test_split_only(clips):
    shapes = {split: {sprite.shape for clip in clips[split] for sprite in clip.sprites} for split in SPLITS}
    assert not set(HELD_OUT_SHAPES) & (shapes["train"] | shapes["validation"])
    assert set(HELD_OUT_SHAPES) <= shapes["test"]
    assert set(TRAINING_SHAPES) | set(HELD_OUT_SHAPES) == set(OUTLINES) and len(OUTLINES) == 12


def test_a_clip_is_what_it_says(clips):
    for clip in (clip for part in clips.values() for clip in part):
        movers = [sprite for sprite in clip.sprites if sprite.moves]
        assert clip.frames.shape == (9, 128, 128, 3) and clip.frames.dtype == np.uint8
        assert 1 <= len(clip.sprites) <= 4 and len(clip.movers) in (1, 2)
        assert [clip.sprites[i] for i in clip.movers] == movers
        assert clip.xy.shape == (9, len(movers), 2) and clip.visible.shape == (9, len(movers))
        assert len({sprite.colour for sprite in clip.sprites}) == len(clip.sprites)
        assert all(SPRITE_SIZES[0] <= sprite.size <= SPRITE_SIZES[1] for sprite in clip.sprites)
        for sprite in clip.sprites:
            steps = np.linalg.norm(np.diff(sprite.xy, axis=0), axis=1)
            assert steps.max() <= FASTEST_STEP + 1e-3
            assert sprite.moves or steps.max() == 0


def test_both_moved_and_two_movers_happen(clips):
    counts = {len(clip.movers) for part in clips.values() for clip in part}
    assert counts == {1, 2}


def test_tracked_point_is_sprite_plus_grab(clips):
    for clip in clips["validation"]:
        for p, mover in enumerate(clip.movers):
            sprite = clip.sprites[mover]
            assert np.array_equal(clip.xy[:, p], sprite.xy + np.array(sprite.grab, np.float32))


def test_position_is_where_the_pixels_are():
    """The centre of mass of what a sprite changes on black is its centre, also between pixels."""
    rgba = draw_sprite("circle", "white", 20, has_face=False)
    for centre in ((40.0, 50.0), (40.5, 50.25), (40.3, 49.9)):
        sprite = Sprite("circle", "white", False, rgba, np.array([centre], np.float32), (0.0, 0.0), False)
        frame = render((sprite,), np.zeros((100, 100, 3), np.float32), 1)[0].sum(-1).astype(float)
        rows, columns = np.mgrid[0:100, 0:100] + 0.5  # pixel i spans i .. i + 1
        found = (frame * columns).sum() / frame.sum(), (frame * rows).sum() / frame.sum()
        assert found == pytest.approx(centre, abs=0.06)


def test_untouched_pixels_are_background(clips):
    for clip in clips["train"]:
        assert clip.untouched.any()
        assert np.array_equal(clip.frames[:, clip.untouched], np.repeat(clip.background[clip.untouched][None], 9, 0))


def disc(x, y, size=20, moves=False):
    rgba = draw_sprite("circle", "red", size, has_face=False)
    path = np.stack([np.linspace(*np.broadcast_to(x, 2), 9), np.linspace(*np.broadcast_to(y, 2), 9)], axis=-1)
    return Sprite("circle", "red", False, rgba, path.astype(np.float32), (0.0, 0.0), moves)


def test_a_sprite_in_front_hides_the_point():
    behind, front = disc((10, 90), 50, moves=True), disc(50, 50)
    seen = _visibility((behind, front), 0, 100, 100)
    assert np.array_equal(seen, np.abs(behind.xy[:, 0] - 50) > 9)
    assert _visibility((front, behind), 1, 100, 100).all()  # in front nothing hides it


def test_outside_of_the_picture_is_invisible():
    assert np.array_equal(_visibility((disc((-10, 110), 50),), 0, 100, 100), [False] + [True] * 7 + [False])


def test_alpha_at_a_point():
    sprite = disc(50, 50)
    assert _alpha_at(sprite, 0, np.array([50.0, 50.0], np.float32)) == 1
    assert _alpha_at(sprite, 0, np.array([41.0, 41.0], np.float32)) == 0
    assert _alpha_at(sprite, 0, np.array([80.0, 50.0], np.float32)) == 0


def test_captions_name_what_moves_and_what_stands(clips):
    for clip in (clip for part in clips.values() for clip in part):
        moving, _, background = clip.caption.partition(" on a ")
        assert background.removesuffix(" background") in BACKGROUNDS
        for sprite in clip.sprites:
            assert f"a {sprite.colour} {sprite.shape}" in moving
        assert moving.count(" moves ") == len(clip.movers)
        assert (" beside " in moving) == (len(clip.sprites) > len(clip.movers))


def test_caption_says_where_to():
    right = next(c for c in (make_clip("train", i, 33) for i in range(40)) if "moves right" in c.caption)
    mover = next(
        s for s in (right.sprites[i] for i in right.movers) if f"{s.shape} moves right" in right.caption or s.has_face
    )
    assert mover.xy[-1, 0] > mover.xy[0, 0]


def test_categories(clips):
    everything = [clip for part in clips.values() for clip in part]
    names = {name for clip in everything for name in clip.categories}
    assert names <= {"fast", "slow", "occluded", "near border", "several sprites", "two paths"}
    for clip in everything:
        assert ("fast" in clip.categories) != ("slow" in clip.categories)
        assert ("several sprites" in clip.categories) == (len(clip.sprites) > 1)
        assert ("two paths" in clip.categories) == (clip.xy.shape[1] == 2)
        inside = ((clip.xy >= 0) & (clip.xy < 128)).all(-1)
        assert ("occluded" in clip.categories) == bool((inside & ~clip.visible).any())


@pytest.mark.parametrize("shape", OUTLINES)
def test_sprites_are_premultiplied_and_inside(shape):
    rgba = draw_sprite(shape, "cyan", 24, has_face=True)
    assert rgba.shape == (24, 24, 4) and rgba.dtype == np.float32
    assert rgba.min() >= 0 and (rgba[..., :3] <= rgba[..., 3:] + 1e-6).all()
    assert rgba[..., 3].max() == 1 and rgba[[0, -1]][..., 3].max() < 1
    assert 0.15 < rgba[..., 3].mean() < 0.95


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds(kind):
    one, same, other = (draw_background(kind, np.random.default_rng(seed), 24, 40) for seed in (1, 1, 2))
    assert one.shape == (24, 40, 3) and one.min() >= 0 and one.max() <= 1
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_paths_stay_in_their_box():
    low, high = np.array([10, 20], np.float32), np.array([90, 60], np.float32)
    for seed in range(30):
        path = sample_path(np.random.default_rng(seed), np.array([30, 30], np.float32), 150, 33, low, high)
        assert path.shape == (33, 2) and (path >= low).all() and (path <= high).all()
        assert path[0] == pytest.approx([30, 30])


def test_tracks_are_the_clip_s_points(clips):
    for clip in clips["validation"][:10]:
        sampled = clip_tracks(clip).to_array()
        assert np.array_equal(sampled.visible, clip.visible)
        assert np.allclose(sampled.xy[clip.visible] * 128, clip.xy[clip.visible], atol=1e-4)


def test_other_sizes():
    clip = make_clip("train", 0, 5, height=64, width=96)
    assert clip.frames.shape == (5, 64, 96, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_clip("dev", 0), "split: 'dev' is unknown; choose one of train, validation, test"),
        (lambda: make_clip("train", -1), "index: -1 is negative"),
        (lambda: make_clip("train", 0, 16), "num_frames: 16 is not of the form 4k"),
        (lambda: make_clip("train", 0, 1), "num_frames: 1 is not of the form 4k"),
        (lambda: draw_sprite("blob", "red", 20, False), "shape: 'blob' is unknown"),
        (lambda: draw_sprite("star", "mauve", 20, False), "colour: 'mauve' is unknown"),
        (lambda: draw_background("plain", np.random.default_rng(0), 8, 8), "background: 'plain' is unknown"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_colours_are_apart():
    table = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
    assert distance[~np.eye(len(table), dtype=bool)].min() > 60


def test_dataset_holds_the_clips(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    dataset = build_dataset("test", 3, num_frames=5, start=2)
    assert dataset.split == "test" and dataset["index"][:] == [2, 3, 4]
    assert dataset.features["frames"].dtype == "uint8"
    for row in dataset.with_format("numpy"):
        clip = make_clip("test", int(row["index"]), 5)
        assert np.array_equal(row["frames"], clip.frames)
        assert np.array_equal(np.stack(list(row["xy"])), clip.xy.swapaxes(0, 1))
        assert np.array_equal(np.stack(list(row["visible"])), clip.visible.swapaxes(0, 1))
        assert row["caption"] == clip.caption and tuple(row["categories"]) == clip.categories
