"""The page of a stage 3 run: rewards as in Figure 6, what the policy did to earn them, and the same prompts over time.

`draw_page` reads what the run left in its folder (log, ratios, sheets), so it can be drawn again at any time:

    python -m training.rollouts.rl_page runs/grpo
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from training.run.runtime import read_rows, smoothed
from training.run.validation import NUM_CLIPS


PANELS = {
    "reward/motion": "motion reward (Eq. 16)",
    "reward/constancy": "constancy of background and pieces, bels",
    "reward/aesthetic": "aesthetic reward (Eq. 15)",
    "reward/sprite_aesthetic": "aesthetic reward, sprite scorer",
    "validation/path_error_px": "path error of the validation clips, px",
    "policy/kl": "divergence from the reference, per dimension",
    "policy/kl_elsewhere": "of which away from the tracks",
    "reward/zero_spread": "share of latents whose group says nothing",
    "policy/clip_fraction": "share of clipped ratios",
    "grad/agreement": "agreement of gradients",
}
SMOOTHING = 0.95


def save_ratios(folder: Path, step: int, log_ratios: torch.Tensor) -> None:
    """Keep the log-ratios ``[N]`` of the counted transitions of one step, after its updates."""
    target = folder / "ratios" / f"{step:06d}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({"log_ratios": log_ratios.float().contiguous().cpu()}, target)


def draw_page(folder: Path, clip: float) -> Path:
    """Draw ``rl.png`` (curves and the histogram of ratios) and ``prompts.png``; returns the first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_rows(folder / "log.jsonl")
    shown = [name for name in PANELS if any(name in row for row in rows)]
    lines = -(-(len(shown) + 1) // 2)
    figure, axes = pyplot.subplots(lines, 2, figsize=(11, 2.6 * lines), squeeze=False)
    for axis, name in zip(axes.flat, shown, strict=False):
        steps, values = zip(*[(row["step"], row[name]) for row in rows if name in row], strict=True)
        axis.plot(steps, values, linewidth=0.7, alpha=0.35)
        axis.plot(steps, smoothed(values, SMOOTHING), linewidth=1.6)
        axis.set_title(PANELS[name], fontsize=9)
        axis.set_xlabel("rollouts", fontsize=8)
        axis.grid(alpha=0.3)
    draw_ratios(axes.flat[len(shown)], folder, clip)
    for axis in axes.flat[len(shown) + 1 :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(folder / "rl.png", dpi=90)
    pyplot.close(figure)
    prompts_over_training(folder)
    return folder / "rl.png"


def draw_ratios(axis: Any, folder: Path, clip: float) -> None:
    """Histogram of ``ratio - 1`` after the updates of the last saved steps, with the ends of the clip range."""
    kept = sorted((folder / "ratios").glob("*.safetensors"))[-4:]
    values = [torch.expm1(load_file(path)["log_ratios"]).numpy() for path in kept]
    values = [value for value in values if value.size]
    if values:
        reach = max(2 * clip, *(float(np.abs(value).max()) for value in values))
        axis.hist(np.concatenate(values), bins=np.linspace(-reach, reach, 41))
        for end in (-clip, clip):
            axis.axvline(end, color="black", linewidth=0.8, linestyle="--")
    axis.set_title(f"ratio - 1 after the update, last {len(kept)} saves (dashed: clip range)", fontsize=9)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 2))
    axis.grid(alpha=0.3)


def prompts_over_training(folder: Path) -> Path | None:
    """Stack the sheets into ``prompts.png``: of each clip the truth, then what the model made of it at every save.

    None where the run drew no sheets.
    """
    sheets = [np.asarray(Image.open(path)) for path in sorted((folder / "sheets").glob("*.png"))]
    if not sheets:
        return None
    strips: list[npt.NDArray[np.uint8]] = []
    for index in range(NUM_CLIPS):
        strips.append(_strip(sheets[-1], 2 * index))
        strips += [_strip(sheet, 2 * index + 1) for sheet in sheets]
    target = folder / "prompts.png"
    Image.fromarray(np.concatenate(strips)).save(target)
    return target


def _strip(sheet: npt.NDArray[np.uint8], row: int) -> npt.NDArray[np.uint8]:
    height = len(sheet) // (2 * NUM_CLIPS)
    return sheet[row * height : (row + 1) * height]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the page of a run folder again.

    Raises:
        ValueError: if the folder holds no run.
    """
    from training.run.config import parse_config
    from training.settings.grpo import GrpoConfig

    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1 or not (Path(given[0]) / "config.yaml").is_file():
        raise ValueError("usage: python -m training.rollouts.rl_page RUN_FOLDER (of training.grpo)")
    folder = Path(given[0])
    print(draw_page(folder, parse_config(GrpoConfig, [str(folder / "config.yaml")]).clip))


if __name__ == "__main__":
    main()
