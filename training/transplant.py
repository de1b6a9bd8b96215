"""Move a trained transformer to the latents of another VAE: only its first and last layers know them.

The blocks know how to follow motion; they stay. Each slot of the patch embedding goes through the linear map from new
latent patches to old ones that least squares finds on the same clips, and what that map does not see of a patch gets
directions of its own, those that the blocks read least. The last layer is then solved for by least squares: from what
the blocks make of the new latents to the true velocity (Eq. 7). What comes out is a start for training, not a model.

    python -m training.transplant --pipeline checkpoints/ardrag-tiny --vae runs/vae/vae --data runs/latents \
        --output_dir runs/transplant
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from tqdm import tqdm

from ardrag.flow import velocity_target
from ardrag.rollout import seeded_generator
from ardrag.streaming_vae import StreamingVAE, fold_causal_convs
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.controls.maker import ControlMaker, give_control
from training.finetune import ConditionedModel, FinetuneConfig, draw_step
from training.rollouts.conditions import BlankMotion
from training.run.config import parse_config
from training.run.data import LatentPool, load_latents, shape_generator
from training.vae.batches import photo_pool, sprite_pool


logger = logging.getLogger(__name__)


@dataclass
class TransplantConfig:
    """What to move where."""

    pipeline: str = field(metadata={"help": "Folder of the trained pipeline."})
    vae: str = field(metadata={"help": "Folder of the VAE to move to."})
    output_dir: str = field(metadata={"help": "Folder of the pipeline to write."})
    data: list[str] = field(default_factory=list, metadata={"help": "Clips precomputed with the new VAE."})
    control: str = field(default="", metadata={"help": "The control of the data; empty: the pipeline's own."})
    outline: str = field(default="", metadata={"help": "Folder of the network that knows outlines, for cutout."})
    sprite_clips: int = field(default=20, metadata={"help": "Sprite World clips that both VAEs encode."})
    photo_clips: int = field(default=20, metadata={"help": "Photo World clips that both VAEs encode; 0 without it."})
    batches: int = field(default=24, metadata={"help": "Batches of six clips that the last layer is solved on."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip of these."})
    sigmas: list[float] = field(default_factory=list, metadata={"help": "Their noise levels; empty: all."})
    ridge: float = field(default=1e-3, metadata={"help": "Regularisation, relative to the mean square of the inputs."})


def patches(latents: Tensor) -> Tensor:
    """Patches of 2x2 of ``[B, C, F, H, W]`` as rows ``[N, C * 4]``, in the order of a patch embedding's weights."""
    cells = latents.unfold(3, 2, 2).unfold(4, 2, 2)  # [B, C, F, h, w, 2, 2]
    return cells.permute(0, 2, 3, 4, 1, 5, 6).flatten(4).flatten(0, 3)


def solve(inputs: Tensor, outputs: Tensor, ridge: float) -> Tensor:
    """The matrix ``[out, in]`` that best takes ``inputs`` ``[N, in]`` to ``outputs`` ``[N, out]``."""
    gram = inputs.T @ inputs
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    return torch.linalg.solve(gram, inputs.T @ outputs).T


@torch.no_grad()
def both_latents(old: StreamingVAE, new: StreamingVAE, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of the same clips (uint8 ``[N, 3, T, H, W]``) in the old and in the new latents."""
    pixels = (clip[None].float() / 127.5 - 1 for clip in tqdm(clips, desc="both VAEs"))
    pairs = [(patches(old.encode(video)), patches(new.encode(video))) for video in pixels]
    first, second = zip(*pairs, strict=True)
    return torch.cat(first), torch.cat(second)


def quiet_directions(transformer: CausalWanTransformer, used: Tensor, count: int) -> Tensor:
    """``count`` orthonormal directions ``[D, count]`` of the stream, outside of ``used`` ``[D, k]``, least read."""
    dim = used.shape[0]
    read = torch.zeros(dim, dim)
    for name, weight in transformer.blocks.named_parameters():
        if weight.ndim == 2 and weight.shape[1] == dim and "attn1.to_out" not in name and "attn2.to_out" not in name:
            read += weight.T @ weight
    basis, _ = torch.linalg.qr(used)
    outside = torch.linalg.qr(torch.cat([basis, torch.eye(dim)], 1))[0][:, basis.shape[1] :]
    _, order = torch.linalg.eigh(outside.T @ read @ outside)
    return outside @ order[:, :count]


def moved_embedding(transformer: CausalWanTransformer, to_old: Tensor, channels: int) -> Tensor:
    """Weights ``[D, slots * channels, 1, 2, 2]`` of the patch embedding for the new latents.

    ``to_old`` ``[old * 4, channels * 4]`` takes a new patch to an old one.
    """
    layout = transformer.config.input_layout
    old = transformer.patch_embedding.weight.detach()
    slots = dict(zip(layout, old.split(list(layout.values()), dim=1), strict=True))
    moved = {name: part.flatten(1) @ to_old for name, part in slots.items()}
    *_, unseen = torch.linalg.svd(to_old)
    unseen = unseen[to_old.shape[0] :]  # what the map does not see of a patch
    own = quiet_directions(transformer, slots["latents"].flatten(1), len(unseen))
    gain = moved["latents"].norm(dim=0).mean()
    moved["latents"] = moved["latents"] + gain * own[:, : len(unseen)] @ unseen[: own.shape[1]]
    return torch.cat([part.unflatten(1, (channels, 1, 2, 2)) for part in moved.values()], dim=1)


def empty_copy(transformer: CausalWanTransformer, channels: int) -> CausalWanTransformer:
    """The same transformer for latents of ``channels``; its first and last layers are still noise."""
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    layout = dict.fromkeys(config["input_layout"], channels)
    config |= {"in_channels": channels * len(layout), "out_channels": channels, "input_layout": layout}
    copy = CausalWanTransformer.from_config(config)
    kept = {n: t for n, t in transformer.state_dict().items() if not n.startswith(("patch_embedding", "proj_out"))}
    missing, unexpected = copy.load_state_dict(kept, strict=False)
    assert not unexpected and all(name.startswith(("patch_embedding", "proj_out")) for name in missing)
    copy.patch_embedding.bias.data.copy_(transformer.patch_embedding.bias)
    return copy


CLIPS = 6
"""Clips of a batch that the last layer is solved on."""


@torch.no_grad()
def solve_last_layer(pipeline: ARDragPipeline, config: TransplantConfig) -> float:
    """Set the last layer to the best linear one; returns the share of the velocity that it leaves unexplained."""
    settings = FinetuneConfig(
        output_dir="", init_from=config.pipeline, causal=True, num_latents=config.num_latents, sigmas=config.sigmas
    )
    pool, model = LatentPool(load_latents(config.data), config.num_latents), ConditionedModel(pipeline)
    pool.show(ControlMaker(pipeline))
    blank, seen = BlankMotion(pipeline), []
    hook = pipeline.transformer.proj_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features, targets = [], []
    for number in tqdm(range(config.batches), desc="last layer"):
        generators = [seeded_generator(0, number, clip) for clip in range(CLIPS)]
        batch = pool.draw(generators, shape_generator(0, number))
        draws = draw_step(batch, blank(batch), settings, generators)
        model(batch, pipeline, draws, settings)
        velocity = velocity_target(batch.latents, draws.noise)
        rows = patches(velocity).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1)  # channels last, as it projects
        learned = (draws.sigmas > 0)[:, :, None].expand(-1, -1, len(rows) // draws.sigmas.numel()).flatten()
        inputs = seen.pop().flatten(0, 1)
        features.append(torch.nn.functional.pad(inputs, (0, 1), value=1.0)[learned])
        targets.append(rows[learned])
    hook.remove()
    inputs, outputs = torch.cat(features), torch.cat(targets)
    matrix = solve(inputs, outputs, config.ridge)
    pipeline.transformer.proj_out.weight.copy_(matrix[:, :-1])
    pipeline.transformer.proj_out.bias.copy_(matrix[:, -1])
    return float((inputs @ matrix.T - outputs).square().mean() / outputs.square().mean())


def main(config: TransplantConfig) -> None:
    """Map, embed, solve, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pipeline = ARDragPipeline.from_pretrained(config.pipeline)
    vae = fold_causal_convs(AutoencoderKLWan.from_pretrained(config.vae).eval())
    clips = sprite_pool("train", config.sprite_clips, 33)
    if config.photo_clips:
        clips = torch.cat([clips, photo_pool("train", config.photo_clips, 33)])
    old, new = both_latents(StreamingVAE(pipeline.vae), StreamingVAE(vae), clips)
    to_old = solve(new, old, config.ridge)
    left = (new @ to_old.T - old).square().mean() / old.square().mean()
    logger.info("the old latents are a linear map of the new ones but for %.1f %%", 100 * left)
    transformer = empty_copy(pipeline.transformer, vae.config.z_dim)
    transformer.patch_embedding.weight.data.copy_(moved_embedding(pipeline.transformer, to_old, vae.config.z_dim))
    pipeline.register_modules(vae=vae, transformer=transformer.eval())
    if config.control:
        give_control(pipeline, config.control, config.outline)
    left = solve_last_layer(pipeline, config)
    logger.info("the last layer leaves %.1f %% of the velocity", 100 * left)
    pipeline.save_pretrained(Path(config.output_dir))


if __name__ == "__main__":
    main(parse_config(TransplantConfig))
