"""What a control costs: a latent from control to pixels under each of several, the same model, taken in turn.

Controls that need a module of their own in the transformer cannot be taken here; the others only change what the VAE
encodes, so that any model of latent width can be shown them, whatever it makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from ardrag.controls.build import build_control
from ardrag.worlds.sprites import SpriteClip
from eval.report.document import table
from eval.speed.sessions import Samples, pointer, seconds_of
from eval.statistics import spread
from pipelines import ARDragPipeline, Session


def check_controls(pipeline: ARDragPipeline, names: Sequence[str]) -> None:
    """Raises ValueError unless all of ``names`` are controls that ``pipeline`` can be shown as it is."""
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"controls: {', '.join(names)} are not two or more different ones; use coloured,carried")
    width = pipeline.vae.config.z_dim
    for name in names:
        control = build_control(name)
        if control.module() is not None or control.width(width) != width:
            raise ValueError(
                f"controls: {name} needs a transformer that was made for it; use coloured, carried or heat"
            )


def time_controls(pipeline: ARDragPipeline, clip: SpriteClip, names: Sequence[str], num_latents: int) -> Samples:
    """Seconds of each latent under each of ``names``, latent by latent in turn, after the cache is full."""
    sessions = {name: session_with(pipeline, clip, name) for name in names}
    window = pipeline.transformer.config.window_frames
    samples: Samples = {name: [] for name in names}
    for latent in range(window + 1 + num_latents):
        for name, session in sessions.items():
            seconds = seconds_of(lambda: session.step(pointer(session.position)))  # noqa: B023 - called at once
            if latent > window:
                samples[name].append(seconds)
    for session in sessions.values():
        session.close()
    return samples


def session_with(pipeline: ARDragPipeline, clip: SpriteClip, name: str) -> Session:
    """A session of a pipeline on the same parts that is shown another control; its seed is always the same."""
    other = ARDragPipeline(**pipeline.components, control=name)
    return other.start_session(Image.fromarray(clip.frames[0]), clip.caption, seed=0)


def control_lines(samples: Mapping[str, Sequence[float]]) -> list[str]:
    """Medians, and the ratio to the first control in pairs of latents (median and quartiles), Markdown."""
    first, rows = next(iter(samples)), []
    for name, values in samples.items():
        ratio = spread([one / other for one, other in zip(values, samples[first], strict=True)])
        told = "{median:.3f} ({quartile_1:.3f} to {quartile_3:.3f})".format(**ratio)
        rows.append([name, f"{1000 * spread(values)['median']:.1f}", told])
    return table(["control", "a latent, ms", f"in pairs with {first}"], rows)
