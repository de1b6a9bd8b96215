"""How fast is it here: time to the first picture, steady frames per second, and where the time goes.

    python -m eval.latency                                        # the bundled checkpoint, one and two threads
    python -m eval.latency --threads 1 --latents 4 --rounds 1     # a quick look
    python -m eval.latency --profile true                         # where the time of a latent goes
    python -m eval.latency --controls coloured,carried            # what a latent costs under each

Clocks run from a call to uint8 pixels in host memory. In every round our session, the same model in chunks of three
latents and all at once, diffusers' `AnyFlowFARPipeline` and `WanImageToVideoPipeline` on random models of the same
size (the latter as it is, and with our VAE convolutions), and both VAE decoders take turns, so that a busy machine
slows all of them alike. The cache pass, the heat-map encode and the decode are all inside our numbers. Round 0 warms
up and is not counted.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AnyFlowFARPipeline, AutoencoderKLWan, WanImageToVideoPipeline
from PIL import Image, ImageChops
from torch import Tensor
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.sprites import make_clip
from eval.model import BUNDLED_NAME, RESULTS, load_pipeline
from eval.record import record_lines, run_record, write_json, write_text
from eval.speed.controls import check_controls, control_lines, time_controls
from eval.speed.latency_report import markdown
from eval.speed.latency_rivals import chunked, time_control
from eval.speed.profile import profile_latents, profile_lines
from eval.speed.sessions import Samples, pointer, seconds_of, time_start, time_steady
from eval.speed.wan_baseline import anyflow_pipeline, chunk_partition, parameters_in_millions, wan_pipeline
from eval.statistics import spread
from pipelines import ARDragPipeline, Session
from pipelines.bidirectional import generate_bidirectional


WAN_GUIDANCE = 5.0
"""Guidance of a call of `WanImageToVideoPipeline` that names none."""


@dataclass
class LatencyConfig:
    """What to time and where to put it."""

    model: str = field(default=BUNDLED_NAME, metadata={"help": "Pipeline folder or Hub name."})
    latents: int = field(default=16, metadata={"help": "Latents timed in each round, after the cache is full."})
    threads: str = field(default="1,2", metadata={"help": "Numbers of threads to try, separated by commas."})
    steps: int = field(default=3, metadata={"help": "Denoising steps per latent."})
    bidirectional_steps: int = field(default=24, metadata={"help": "Steps of the bidirectional run, as the teacher."})
    rounds: int = field(default=5, metadata={"help": "Counted rounds; one more warms up."})
    num_frames: int = field(default=33, metadata={"help": "Pixel frames of the baseline's clip, 4k + 1."})
    output_dir: str = field(default="outputs/latency", metadata={"help": "Folder of the report of another model."})
    default_steps: int = field(default=50, metadata={"help": "Steps of diffusers' pipeline at its own defaults."})
    profile: bool = field(default=False, metadata={"help": "Say where the time of a latent goes, and nothing else."})
    controls: str = field(
        default="", metadata={"help": "Names with commas between: a latent under each in turn, and nothing else."}
    )
    report_name: str = field(default="latency", metadata={"help": "Name of the report's files."})
    report_dir: str | None = field(
        default=None, metadata={"help": "Folder of the report; default: docs/results for the bundled model."}
    )

    def __post_init__(self) -> None:
        for name in ("latents", "steps", "bidirectional_steps", "default_steps", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive; use 1 or more")
        if self.num_frames < 5 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames: {self.num_frames} is not 4k + 1; use 33")
        if not self.thread_counts:
            raise ValueError("threads: nothing given; use for instance 1,2")

    @property
    def thread_counts(self) -> list[int]:
        """The numbers of threads, checked."""
        counts = []
        for text in filter(None, self.threads.split(",")):
            if not text.strip().isdecimal() or not 1 <= int(text) <= (os.cpu_count() or 1):
                raise ValueError(f"threads: {text!r} is not a number from 1 to {os.cpu_count()}, the cores there are")
            counts.append(int(text))
        return counts

    @property
    def report_folder(self) -> Path:
        """Where the report goes."""
        if self.report_dir is not None:
            return Path(self.report_dir)
        return RESULTS if self.model == BUNDLED_NAME else Path(self.output_dir)


@dataclass(frozen=True)
class Subject:
    """Everything that is timed, and the input that all share."""

    pipeline: ARDragPipeline
    chunked: ARDragPipeline
    """The same with chunks of three latents."""
    baselines: dict[str, WanImageToVideoPipeline]
    anyflow: AnyFlowFARPipeline
    image: Image.Image
    prompt: str
    latents: Tensor
    """Normalised latents ``[1, C, F, H, W]`` for the two decoders."""
    config: LatencyConfig

    calls: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new(self) -> tuple[Image.Image, str]:
        """A picture and a prompt that nobody has asked for before: pipelines know again what they have encoded."""
        number = next(self.calls)
        down, right = divmod(number, self.image.width)
        return ImageChops.offset(self.image, right, down), f"{self.prompt} {number}"

    def session(self, **options: Any) -> Session:
        """A new session: text, picture and reference latent are encoded here."""
        return self.pipeline.start_session(*self.new(), num_inference_steps=self.config.steps, **options)

    def known_session(self) -> Session:
        """The same of a picture and a prompt that the pipeline knows after the first time."""
        return self.pipeline.start_session(self.image, self.prompt, num_inference_steps=self.config.steps)

    def chunk_session(self) -> Session:
        """A new session with chunks of three latents."""
        return self.chunked.start_session(*self.new(), num_inference_steps=self.config.steps)


def make_subject(pipeline: ARDragPipeline, config: LatencyConfig) -> Subject:
    """The pipeline, its two baselines, a Sprite World picture with its caption, and random latents."""
    clip = make_clip("test", 0)
    image = Image.fromarray(clip.frames[0])
    factor = pipeline.vae.config.scale_factor_spatial
    count = 1 + (config.num_frames - 1) // pipeline.vae.config.scale_factor_temporal
    shape = (1, pipeline.vae.config.z_dim, count, image.height // factor, image.width // factor)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    baselines = {"diffusers": wan_pipeline(pipeline, folded=False), "diffusers_folded": wan_pipeline(pipeline, True)}
    return Subject(
        pipeline, chunked(pipeline), baselines, anyflow_pipeline(pipeline), image, clip.caption, latents, config
    )


def time_baseline(subject: Subject, name: str, at_defaults: bool = False) -> Samples:
    """Seconds of a whole clip, when a bidirectional model shows its first frame: with the prompt new, and encoded.

    ``at_defaults``: with the prompt new, at the steps and the guidance that a call has which names none.
    """
    baseline, config = subject.baselines[name], subject.config

    def run(**options: Any) -> Any:
        settings = {"num_inference_steps": config.steps, "guidance_scale": 1.0, **options}
        return baseline(
            image=subject.image,
            height=subject.image.height,
            width=subject.image.width,
            num_frames=config.num_frames,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            **settings,
        )

    if at_defaults:
        settings = {"num_inference_steps": config.default_steps, "guidance_scale": WAN_GUIDANCE}
        return {f"{name}_defaults": [seconds_of(lambda: run(prompt=subject.prompt, **settings))]}

    embeds, _ = baseline.encode_prompt(subject.prompt, do_classifier_free_guidance=False, max_sequence_length=512)
    return {
        f"{name}_cold": [seconds_of(lambda: run(prompt=subject.prompt))],
        f"{name}_cached": [seconds_of(lambda: run(prompt_embeds=embeds))],
    }


def time_anyflow(subject: Subject) -> Samples:
    """Seconds of a whole clip by diffusers' causal pipeline, which shows nothing before; picture and prompt new."""
    config = subject.config
    picture = torch.from_numpy(np.array(subject.image)).permute(2, 0, 1)[None, None].float() / 255
    run = {
        "prompt": subject.prompt,
        "video": picture,
        "height": subject.image.height,
        "width": subject.image.width,
        "num_frames": config.num_frames,
        "num_inference_steps": config.steps,
        "chunk_partition": chunk_partition(subject.latents.shape[2]),
    }
    return {"anyflow_cold": [seconds_of(lambda: subject.anyflow(**run, generator=torch.Generator().manual_seed(0)))]}


def time_rivals(subject: Subject, encoded: bool, window: int) -> Samples:
    """Seconds to the first generated pixels, and from a control to its pixels, in chunks of three and all at once.

    A bidirectional model takes no control while it runs: its two delays are the whole clip.
    """
    config = subject.config
    _, first = time_start(subject.chunk_session, encoded)
    control = time_control(subject.chunk_session(), pointer(0), window, max(1, config.latents // 3))
    tracks = Tracks.from_points(
        [[(0, *pointer(0)[0]), (config.num_frames - 1, *pointer(4)[0])]], num_frames=config.num_frames
    )

    def at_once() -> Any:
        return generate_bidirectional(
            subject.pipeline, *subject.new(), tracks, config.num_frames, config.bidirectional_steps
        )

    return {"chunk_cold": [first], "chunk_control": control, "bidirectional_cold": [seconds_of(at_once)]}


def decode_streamed(subject: Subject) -> Tensor:
    """Our decoder, latent by latent as in a session: pixels ``[1, 3, T, H, W]``."""
    stream = StreamingVAE(subject.pipeline.vae)
    return torch.cat([stream.decode_next(latent) for latent in subject.latents.split(1, dim=2)], dim=2)


def decode_diffusers(subject: Subject) -> Tensor:
    """diffusers' decoder on the same latents: pixels ``[1, 3, T, H, W]``."""
    vae: AutoencoderKLWan = subject.baselines["diffusers"].vae
    mean, std = torch.tensor([vae.config.latents_mean, vae.config.latents_std]).view(2, 1, -1, 1, 1, 1)
    return vae.decode(subject.latents * std + mean, return_dict=False)[0]


@torch.no_grad()
def one_round(subject: Subject, warms_up: bool = False) -> Samples:
    """Everything once, taking turns; seconds, except ``frames_per_second``.

    A round that ``warms_up`` leaves out the longest run, whose parts the others have warmed up.
    """
    window = subject.pipeline.transformer.config.window_frames
    encoded = subject.pipeline.scheduler.config.first_frame == "encode"
    samples: Samples = {}
    first, generated = time_start(subject.session, encoded)
    samples |= {"first_frame_cold": [first], "first_generated_cold": [generated]}
    samples |= time_baseline(subject, "diffusers")
    samples |= {} if warms_up else time_baseline(subject, "diffusers", at_defaults=True)
    ready = subject.session()
    first, generated = time_start(ready.fork, encoded)
    samples |= {"first_frame_cached": [first], "first_generated_cached": [generated]}
    samples["again"] = [time_start(subject.known_session, encoded)[1]]
    samples |= time_steady(ready, subject.session(overlap=False), subject.config.latents, window)
    samples |= time_anyflow(subject)
    samples |= time_rivals(subject, encoded, window)
    samples |= time_baseline(subject, "diffusers_folded")
    count = subject.latents.shape[2]
    samples["decode_ours"] = [seconds_of(lambda: decode_streamed(subject)) / count]
    samples["decode_diffusers"] = [seconds_of(lambda: decode_diffusers(subject)) / count]
    return samples


def measure(subject: Subject) -> dict[str, dict[str, dict[str, float]]]:
    """Spread of every quantity, per number of threads."""
    config, found = subject.config, {}
    previous = torch.get_num_threads()
    with tqdm(total=len(config.thread_counts) * (config.rounds + 1), desc="rounds") as bar:
        for count in config.thread_counts:
            torch.set_num_threads(count)
            samples: Samples = defaultdict(list)
            one_round(subject, warms_up=True)
            bar.update()
            for _ in range(config.rounds):
                for name, values in one_round(subject).items():
                    samples[name].extend(values)
                bar.update()
            found[str(count)] = {name: spread(values) for name, values in samples.items()}
    torch.set_num_threads(previous)
    return found


@torch.no_grad()
def run_latency(config: LatencyConfig, record: dict[str, Any]) -> dict[str, Any]:
    """Time everything, write results and report; returns the results."""
    pipeline = load_pipeline(config.model)
    subject = make_subject(pipeline, config)
    difference = (decode_streamed(subject) - decode_diffusers(subject)).abs().max().item()
    results = {
        "record": record,
        "settings": asdict(config),
        "model": {
            "first_frame": pipeline.scheduler.config.first_frame,
            "transformer_millions": parameters_in_millions(pipeline.transformer),
            "baseline_millions": parameters_in_millions(subject.baselines["diffusers"].transformer),
            "vae_millions": parameters_in_millions(pipeline.vae),
            "size": list(subject.image.size),
        },
        "decode_difference": difference,
        "threads": measure(subject),
    }
    write_json(config.report_folder / f"{config.report_name}.json", results)
    write_text(config.report_folder / f"{config.report_name}.md", markdown(results))
    return results


@torch.no_grad()
def run_profile(config: LatencyConfig, record: dict[str, Any]) -> str:
    """Where the time of a latent goes, on one thread; writes the page and returns it."""
    torch.set_num_threads(1)
    pipeline, clip = load_pipeline(config.model), make_clip("test", 0)
    image = Image.fromarray(clip.frames[0])
    session = pipeline.start_session(image, clip.caption, num_inference_steps=config.steps)
    while session.position <= pipeline.transformer.config.window_frames:
        session.step(pointer(session.position))
    found = profile_latents(pipeline, lambda: session.step(pointer(session.position)), config.latents)
    session.close()
    page = "\n".join(["# Where the time of a latent goes", "", *profile_lines(found), "", *record_lines(record), ""])
    write_text(config.report_folder / f"{config.report_name}_profile.md", page)
    return page


def run_controls(config: LatencyConfig, record: dict[str, Any]) -> str:
    """What a latent costs under each of some controls; writes the page and returns it.

    Raises:
        ValueError: see `check_controls`.
    """
    pipeline, names = load_pipeline(config.model), config.controls.split(",")
    check_controls(pipeline, names)
    lines = ["# A latent under each control, the same model, in turn"]
    previous = torch.get_num_threads()
    for count in config.thread_counts:
        torch.set_num_threads(count)
        found = time_controls(pipeline, make_clip("test", 0), names, config.latents)
        lines += ["", f"{count} thread{'s' if count > 1 else ''}, {config.latents} latents of each:", ""]
        lines += control_lines(found)
    torch.set_num_threads(previous)
    page = "\n".join([*lines, "", *record_lines(record), ""])
    write_text(config.report_folder / f"{config.report_name}_controls.md", page)
    return page


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its page."""
    (config,) = HfArgumentParser(LatencyConfig).parse_args_into_dataclasses(arguments)
    record = run_record("eval.latency", arguments)
    if config.controls:
        print(run_controls(config, record))
    else:
        print(run_profile(config, record) if config.profile else markdown(run_latency(config, record)))


if __name__ == "__main__":
    main()
