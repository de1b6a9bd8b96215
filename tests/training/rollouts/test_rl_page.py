"""The page of a stage 3 run, from what a run leaves behind."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from training.rollouts import rl_page
from training.rollouts.rl_page import draw_page, main, prompts_over_training, save_ratios
from training.run.config import config_lines
from training.run.runtime import RunLog
from training.settings.grpo import GrpoConfig


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two sheets of two clips, rows alternating truth and result, and a log."""
    monkeypatch.setattr(rl_page, "NUM_CLIPS", 2)
    log = RunLog(tmp_path)
    for step in range(6):
        log.write(step, **{"reward/motion": step / 3, "policy/kl": 0.001 * step, "policy/clip_fraction": 0.0})
    (tmp_path / "sheets").mkdir()
    for save in (0, 3):
        rows = [np.full((4, 12, 3), 10 * row + save, np.uint8) for row in range(4)]
        Image.fromarray(np.concatenate(rows)).save(tmp_path / "sheets" / f"{save:06d}.png")
    (tmp_path / "config.yaml").write_text(config_lines(GrpoConfig(output_dir=str(tmp_path), init_from="none")))
    save_ratios(tmp_path, 3, torch.linspace(-2e-4, 2e-4, 50))
    return tmp_path


def test_the_same_prompts_over_training(run):
    sheet = np.asarray(Image.open(prompts_over_training(run)))
    assert sheet[::4, 0, 0].tolist() == [3, 10, 13, 23, 30, 33]  # truth, before, after; twice
    assert sheet.shape == (24, 12, 3)


def test_page(run, capsys):
    target = draw_page(run, clip=1e-4)
    one_ratio_panel = np.asarray(Image.open(target).convert("L"))
    assert one_ratio_panel.std() > 5 and (run / "prompts.png").exists()
    (run / "rl.png").unlink()
    main([str(run)])
    assert "rl.png" in capsys.readouterr().out and (run / "rl.png").exists()
    assert load_file(run / "ratios" / "000003.safetensors")["log_ratios"].shape == (50,)


def test_a_run_that_has_just_begun(tmp_path):
    RunLog(tmp_path).write(0, loss=1.0)
    assert draw_page(tmp_path, 1e-4).exists() and not (tmp_path / "prompts.png").exists()


def test_no_run(tmp_path):
    with pytest.raises(ValueError, match="usage: python -m training.rollouts.rl_page RUN_FOLDER"):
        main([str(tmp_path)])
