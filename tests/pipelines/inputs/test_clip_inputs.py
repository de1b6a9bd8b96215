"""A clip's conditions at once are those that a session makes latent by latent."""

import pytest
import torch

from ardrag.controls.build import CONTROLS, build_control
from ardrag.controls.control import Rows
from ardrag.rollout import GeneratorNoise, seeded_generator
from ardrag.tracks.tracks import Tracks
from pipelines.inputs.clip_inputs import clip_inputs


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_conditions_are_those_of_a_session(make_pipeline, picture, outline, name):
    control = build_control(name)
    layout = {"latents": 4, "motion": control.width(4), "image": 4}
    changes = {"input_layout": layout, "input_order": None, "in_channels": sum(layout.values())}
    pipeline = make_pipeline(transformer={**changes, "control_module": control.module()})
    pipeline.register_to_config(control=control.config())
    pipeline.register_modules(outline=outline)
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.4)], [(0, 0.9, 0.1)]], num_frames=9)
    masks = torch.ones(2, picture.height, picture.width)
    session, seen = pipeline.start_session(picture, "a star", masks=masks), []
    make = session._maker.conditions
    session._maker.conditions = lambda *arguments: seen.append(make(*arguments)) or seen[-1]
    for _ in range(3):
        session.step(tracks)
    noise = GeneratorNoise([seeded_generator(0)], torch.device("cpu"), torch.float32)
    conditions, reference = clip_inputs(pipeline, picture, "a star", tracks, 9, noise, masks)
    motion = torch.cat([part.motion for part in seen], dim=2)
    torch.testing.assert_close(conditions.motion, motion, rtol=0, atol=1e-5)
    shown = pipeline.control.clip(pipeline.vae, pipeline.scene(picture, masks), Rows.of(tracks))
    torch.testing.assert_close(motion, shown, rtol=0, atol=1e-5)
    assert torch.equal(conditions.image[:, :, :1], reference) and torch.equal(reference, seen[0].image[:, :, :1])
    assert torch.equal(conditions.text, seen[0].text) and torch.equal(conditions.image_tokens, seen[0].image_tokens)
    expected = GeneratorNoise([seeded_generator(0)], torch.device("cpu"), torch.float32)((1, 4, *motion.shape[2:]))
    assert torch.equal(conditions.image[:, :, 1:], expected[:, :, 1:])


@pytest.fixture
def masked(make_pipeline):
    pipeline = make_pipeline()
    pipeline.register_to_config(control=build_control("masks").config())
    return pipeline


TWO = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.4)], [(0, 0.9, 0.1)]], num_frames=9)


@pytest.mark.parametrize("call", ["causal", "bidirectional", "stream", "start_session"])
def test_a_checkpoint_that_is_shown_masks_says_that_it_needs_them(masked, picture, call):
    missing = (
        r"^masks: the control shows masks, and none were given; give masks=\[P, H, W\] in 0..1, one for each track$"
    )
    with pytest.raises(ValueError, match=missing):
        if call in ("causal", "bidirectional"):
            masked(picture, "a star", tracks=TWO, mode=call)
        elif call == "stream":
            masked.stream(picture, "a star", tracks=TWO)
        else:
            masked.start_session(picture, "a star")


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_masks_reach_the_model_and_are_checked(masked, picture, mode):
    first, other = torch.zeros(2, 2, picture.height, picture.width)
    first[:, :16], other[:, 16:] = 1, 1
    made = []
    for masks in (first, first, other):
        options = {"masks": masks, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
        made.append(masked(picture, tracks=TWO, mode=mode, **options).frames)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    with pytest.raises(ValueError, match=r"masks: \[2, 8, 8\] must be \[P, 32, 32\], one for each track"):
        masked(picture, tracks=TWO, mode=mode, masks=torch.ones(2, 8, 8))
    with pytest.raises(ValueError, match="masks: 1 given, but there is a track 1; give one for each"):
        masked(picture, tracks=TWO, mode=mode, masks=torch.ones(1, 32, 32))
