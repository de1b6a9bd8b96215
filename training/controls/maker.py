"""The motion slot of a clip, made of its tracks when the clip is drawn, for whatever control a pipeline has.

    pool.show(ControlMaker(pipeline, config))
    batch = pool.draw(generators, shape)        # batch.motion is what the pipeline's control shows of the tracks

Where the control that is stored beside a clip is the pipeline's, it is taken as it is: encoding a video costs more
than a step of a small model. Clips are made one by one, each from a generator of its own: what is shown of a clip does
not depend on what it is batched with, and a run that goes on is shown what it would have been.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.controls.build import build_control
from ardrag.controls.control import Control, Rows, Scene, segments
from ardrag.outlines.network import Outline
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.sampling import TrackArrays
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.controls.changes import changed
from training.run.clips import unpack_half, unpack_rows, unpack_tracks
from training.settings.tracks import TrackConfig


PATCHES = "patch_embedding.weight"
logger = logging.getLogger(__name__)


def control_text(control: Control) -> str:
    """``control`` as a row of a dataset names it."""
    return json.dumps(control.config(), sort_keys=True)


@torch.no_grad()
def made_motion(
    control: Control,
    vae: AutoencoderKLWan,
    row: Mapping[str, Any],
    arrays: TrackArrays,
    seed: int = 0,
    outline: Outline | None = None,
) -> Tensor:
    """Motion slot ``[C, F, h, w]`` of a clip whose latents are known, on the CPU; arguments are those of `told`.

    In the VAE's own precision also under autocast.
    """
    with torch.autocast(vae.device.type, enabled=False):
        scene, rows, keyframes = told(control, vae, row, arrays, seed, outline)
        return control.clip(vae, scene, rows, keyframes)[0].cpu()


@torch.no_grad()
def told(
    control: Control,
    vae: AutoencoderKLWan,
    row: Mapping[str, Any],
    arrays: TrackArrays,
    seed: int = 0,
    outline: Outline | None = None,
) -> tuple[Scene, Rows, Tensor | None]:
    """What `Control.clip` is given of a clip; a track that begins late takes what is there then, as latents decode.

    Args:
        row: of `ardrag.clips/v1`.
        arrays: its tracks, as they are to be shown.
        seed: of what the control draws by lot.
        outline: what tells a control where things end, if it asks.
    """
    picture = torch.from_numpy(np.array(row["reference"])).permute(2, 0, 1).float() / 127.5 - 1
    latents = unpack_half(row["latents"], row["latent_shape"])[None].to(vae.device)
    scene = Scene(picture.to(vae.device), latents[:, :, :1], seed=seed, outline=outline)
    keyframes = keyframes_of(vae, latents, arrays) if control.takes_later else None
    return scene, Rows(arrays, unpack_rows(row).brushes), keyframes


def keyframes_of(vae: AutoencoderKLWan, latents: Tensor, arrays: TrackArrays) -> Tensor | None:
    """The last frame of each latent ``[F, 3, H, W]``; None where no track begins after the first."""
    stream = StreamingVAE(vae)
    if len(list(segments(arrays, stream.temporal_factor))) == 1:
        return None
    return stream.decode(latents)[0, :, :: stream.temporal_factor].movedim(1, 0)


class ControlMaker:
    """What ``pipeline``'s control shows of the tracks of a row, after the changes that ``changes`` names."""

    def __init__(self, pipeline: ARDragPipeline, changes: TrackConfig | None = None) -> None:
        self._control, self._vae, self._outline = pipeline.control, pipeline.vae, pipeline.outline
        self._changes = changes or TrackConfig()
        self._stored = control_text(self._control)
        self._has_told = False

    def __call__(self, row: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        """Motion slot ``[C, F, h, w]`` of the whole clip; ``generator`` is the clip's, from which nothing is drawn."""
        if row["control"] == self._stored and not self._changes.changes_tracks:
            return unpack_half(row["motion"], row["latent_shape"])
        if row["motion"] and not row["control"] and not self._changes.changes_tracks and not self._has_told:
            self._has_told = True
            logger.warning(
                "data: clip %s does not say which control is stored beside it, so %s is made anew whenever it is "
                "drawn, which may take longer than a step; store it once: python -m training.precompute --clips "
                "FOLDER --control %s --vae VAE --output_dir NEW",
                row["id"],
                *[self._control.name] * 2,
            )
        rng = np.random.default_rng(generator.initial_seed())
        arrays = changed(unpack_tracks(row), self._changes, row["height"], row["width"], rng)
        seed = int(rng.integers(2**31))
        return made_motion(self._control, self._vae, row, arrays, seed, self._outline)


def give_control(pipeline: ARDragPipeline, name: str, outline: str = "") -> None:
    """Have ``pipeline`` show tracks by the control ``name``, in place; what knows outlines is in ``outline``.

    Where the control needs another motion slot or a module in the transformer, the transformer is built anew; what
    both have keeps its weights, what is new begins as `ardrag.controls.build.attach` says.

    Raises:
        ValueError: if there is no such control, or the transformer has another one's module.
    """
    control, own = build_control(name), pipeline.transformer.config.control_module
    if own is not None and own != control.module():
        raise ValueError(
            f"control: init_from has {own['name']} built into its transformer, which {name} does not go with; start "
            "from a plain model"
        )
    config = {key: value for key, value in pipeline.transformer.config.items() if not key.startswith("_")}
    layout = {**config["input_layout"], "motion": control.width(pipeline.vae.config.z_dim)}
    if control.module() != own:
        config |= {"input_layout": layout, "in_channels": sum(layout.values()), "control_module": control.module()}
        pipeline.register_modules(transformer=with_weights(CausalWanTransformer.from_config(config), pipeline))
    pipeline.register_to_config(control=control.config())
    if outline:
        pipeline.register_modules(outline=Outline.from_pretrained(outline))


def with_weights(fresh: CausalWanTransformer, pipeline: ARDragPipeline) -> CausalWanTransformer:
    """``fresh`` with the weights of ``pipeline``'s transformer, which is plain; other patches of motion stay fresh."""
    weights, own = pipeline.transformer.state_dict(), fresh.state_dict()
    widths = dict(pipeline.transformer.config.input_layout)
    old = dict(zip(widths, weights[PATCHES].split(list(widths.values()), dim=1), strict=True))
    widths["motion"] = own[PATCHES].shape[1] - sum(width for name, width in widths.items() if name != "motion")
    new = zip(widths, own[PATCHES].split(list(widths.values()), dim=1), strict=True)
    parts = [old[name] if old[name].shape == part.shape else part for name, part in new]
    fresh.load_state_dict({**own, **weights, PATCHES: torch.cat(parts, dim=1)})
    return fresh
