"""The audit of rewards where the answer is known: one that is the truth, one that is noise, one that says nothing."""

import numpy as np
import pytest
import torch

from ardrag.worlds.sprites import make_clip
from training.reward_audit import AuditConfig, main, page, true_errors, within_groups


def test_correlations_of_known_rewards():
    rng = np.random.default_rng(0)
    clip_level, member = rng.uniform(0, 9, (30, 1, 1)), rng.uniform(0, 0.5, (30, 8, 4))
    error = clip_level + member
    assert within_groups(-error, error) == (pytest.approx(-1), 120)
    blind = np.broadcast_to(-clip_level, error.shape)  # ranks clips, is blind within a group
    assert within_groups(blind, error)[1] == 0 and np.isnan(within_groups(blind, error)[0])
    inside, told = within_groups(rng.normal(size=error.shape), error)
    assert abs(inside) < 0.15 and told == 120
    error[3, 2, 1] = np.nan
    assert within_groups(-error, error)[1] == 119


def test_page():
    error = np.array([[[1.0, 2.0], [3.0, 1.0]], [[5.0, 5.0], [7.0, 9.0]]])
    text = page({"truth": -(error**2), "nothing": np.zeros_like(error)}, error)
    assert "| truth | -1.00 | 4 of 4 |" in text and "| nothing | nan | 0 of 4 |" in text
    assert (
        "True error 4.12 px" in text and "best member of each group 3.25 px, the best at each latent 3.00 px" in text
    )


def test_true_errors_of_the_truth_and_of_a_shift():
    clip = make_clip("train", 3, 9)
    truth = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    errors = true_errors(clip, torch.stack([truth, truth.roll(6, dims=3)]))
    assert errors.shape == (2, 3) and np.nanmax(errors[0]) < 1 and np.nanmean(errors[1]) == pytest.approx(6, abs=1)


@pytest.mark.filterwarnings("ignore:Mean of empty slice|Degrees of freedom|All-NaN")  # short clips show little
def test_the_command(make_pipeline, tmp_path, capsys):
    pipeline = make_pipeline(scheduler={"sigmas": [1.0, 0.5, 0.0], "num_inference_steps": 2, "eta": 1.0})
    pipeline.register_to_config(buckets=[[64, 64]])
    pipeline.save_pretrained(tmp_path)
    main(AuditConfig(str(tmp_path), prompts=2, group_size=2, num_latents=3))
    out = capsys.readouterr().out
    assert "| patch |" in out and "| lucas_kanade |" in out and "True error" in out
    with pytest.raises(ValueError, match="prompts: 1 is too few"):
        AuditConfig("x", prompts=1)
