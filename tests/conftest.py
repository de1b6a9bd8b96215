"""What every test gets: one thread and fixed seeds, so that a result depends on nothing but the code.

`make_pipeline` builds a real `ARDragPipeline` out of real classes with random weights, small enough for a few
milliseconds a latent; `pipeline` is one of them, shared by all tests, which leave it as it is.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hub_process import HubProcess
from tests.hub_server import HubServer
from tests.preloaded import Preloaded
from tests.worlds_library import write_made_up


SIDE = 32
CAPTIONS = ["a red star moves right on a noise background", "a blue circle with a face moves up", ""]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a library of made-up pictures, `tests.worlds_library`."""
    folder = tmp_path_factory.mktemp("pictures")
    write_made_up(folder)
    return str(folder)


@pytest.fixture(scope="session")
def library(picture_folder: str) -> Any:
    """The library of `picture_folder`."""
    from ardrag.worlds.photo_library import open_library

    return open_library(picture_folder)


def build_tiny_vae() -> Any:
    from ardrag.streaming_vae import fold_causal_convs
    from training.train_vae import VAEConfig, build_vae

    vae = build_vae(VAEConfig(output_dir="", base_dim=8, decoder_base_dim=8, z_dim=4))
    return fold_causal_convs(vae.eval().requires_grad_(False))


def build_tiny_pipeline(
    scheduler: dict[str, Any] | None = None,
    transformer: dict[str, Any] | None = None,
    image_encoder: bool = True,
) -> Any:
    """`scheduler`: changes of its settings; `transformer`: changes of the tiny one's configuration."""
    from ardrag.flow import FewStepScheduler
    from ardrag.transformer import CausalWanTransformer
    from pipelines import ARDragPipeline
    from training.run import tiny

    torch.manual_seed(0)
    vae = build_tiny_vae()
    model = tiny.build_transformer(vae, num_layers=2, num_heads=2, head_dim=12, ffn_dim=32)
    if transformer:  # without diffusers' own notes: keys listed there would fall back to the class's defaults
        config = {name: value for name, value in model.config.items() if not name.startswith("_")}
        model = CausalWanTransformer(**{**config, **transformer})
    with torch.no_grad():  # random weights hardly look at the control; make them
        model.patch_embedding.weight[:, 4:8] *= 30
    tokenizer = tiny.train_tokenizer(CAPTIONS, vocab_size=300)
    encoder, processor = tiny.build_image_encoder(SIDE) if image_encoder else (None, None)
    pipeline = ARDragPipeline(
        transformer=model.eval().requires_grad_(False),
        vae=vae,
        text_encoder=tiny.build_text_encoder(len(tokenizer)).eval().requires_grad_(False),
        tokenizer=tokenizer,
        scheduler=FewStepScheduler(**{"sigmas": [1.0, 0.6, 0.0], "num_inference_steps": 2, **(scheduler or {})}),
        image_encoder=encoder and encoder.eval().requires_grad_(False),
        image_processor=processor,
        buckets=[[SIDE, SIDE]],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_tiny_outline() -> Any:
    from ardrag.outlines.network import Outline

    torch.manual_seed(0)
    return Outline(widths=(4, 8), side=SIDE).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def outline() -> Any:
    """What knows outlines, or rather guesses: it has learnt nothing."""
    return build_tiny_outline()


@pytest.fixture(scope="session")
def make_pipeline() -> Callable[..., Any]:
    return build_tiny_pipeline


@pytest.fixture(scope="session")
def pipeline() -> Any:
    """Shared: do not change its weights, adapters or scheduler."""
    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A small colourful RGB picture."""
    pixels = np.random.default_rng(7).integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A `python` that starts at once; see `tests/preloaded.py`."""
    preloaded = Preloaded(tmp_path_factory.mktemp("preloaded"))
    yield preloaded.command
    preloaded.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A Hub; see `tests/hub_server.py`."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def hub_process(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A process of alice's, who may write, with caches of its own."""
    process = HubProcess(hub, tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work"))
    yield process
    process.kill()
