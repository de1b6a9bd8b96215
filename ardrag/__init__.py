"""AR-Drag: drag a picture and it moves, one latent frame at a time.

    from ardrag import ARDragPipeline, CausalWanTransformer, Tracks, bundled

In a checkout `pipelines/` lies beside this package: run from its root, or install it (`pip install .`).

Letters used for shapes everywhere:
    B  batch                C  channels             F  latent frames        H W  latent height, width
    T  pixel frames         L  tokens per latent    N  attention heads      D    head dimension
    P  tracks               G  group of rollouts    K  denoising steps

Latents are always [B, C, F, H, W]. Latent frame 0 decodes to one pixel frame, latent frame m >= 1 to the pixel frames
4m-3..4m. `sigma` lies in [0, 1] with 1 = noise; `velocity = noise - clean`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ardrag.home import __version__


if TYPE_CHECKING:
    from ardrag.home import bundled as bundled
    from ardrag.tracks.tracks import Tracks as Tracks
    from ardrag.transformer import CausalWanTransformer as CausalWanTransformer
    from pipelines import ARDragPipeline as ARDragPipeline

__path__.append(f"{__path__[0]}/old_names")  # `import ardrag.sprite_features` and its like
__all__ = ["ARDragPipeline", "CausalWanTransformer", "Tracks", "__version__", "bundled"]

_HOMES = {"CausalWanTransformer": "ardrag.transformer", "Tracks": "ardrag.tracks", "bundled": "ardrag.home"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import ardrag` costs nothing."""
    if name == "ARDragPipeline":
        return import_module("ardrag.home").import_part("pipelines").ARDragPipeline
    if name not in _HOMES:
        raise AttributeError(f"module 'ardrag' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
