"""TAP-Vid pickles: arrays come out right in every protocol, and nothing in a pickle runs."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.formats.pickles import MOST_STEPS, StoredArray, load_pickle
from ardrag.tracks.formats.tapvid import clip_of, load_clips
from ardrag.tracks.tracks import Tracks


def entry(frames: int = 9) -> dict[str, Any]:
    t = np.linspace(0.2, 0.6, frames, dtype=np.float32)
    points = np.stack([np.stack([t, 0.5 + 0 * t], -1), np.stack([0.3 + 0 * t, t], -1)])
    occluded = np.zeros((2, frames), bool)
    occluded[1, :3] = True
    points[1, :3] = np.nan
    video = np.random.default_rng(0).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)
    return {"video": video, "points": points, "occluded": occluded}


def stored(value: Any, protocol: int | None = None) -> io.BytesIO:
    return io.BytesIO(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_numpys(protocol: int, order: str) -> None:
    made = np.asarray(np.arange(24).reshape(2, 3, 4), order=order)
    for array in (made, made.astype(">f4"), made > 3, made.astype(np.uint8)[:0]):
        found = load_pickle(stored({"a": array}, protocol))["a"]
        assert isinstance(found, StoredArray) and (found.array() == array).all() and found.array().shape == array.shape


def test_by_name_and_as_a_list() -> None:
    one = entry()
    for content, options in (
        ({"goat": one}, {}),
        ([one, entry(6)], {"item": "0"}),
        ({"b": entry(6), "goat": one}, {"item": "goat"}),
    ):
        tracks = Tracks.load(stored(content), **options)
        arrays = tracks.to_array()
        assert (tracks.num_frames, tracks.canvas.width, tracks.canvas.height) == (9, 48, 32)
        assert (arrays.visible == ~one["occluded"].T).all()
        assert arrays.xy[arrays.visible] == pytest.approx(one["points"].swapaxes(0, 1)[arrays.visible], abs=1e-6)
    with pytest.raises(ValueError, match=r"item: it holds 2 clips \(a, b\); name one, or bring a file of one alone"):
        Tracks.load(stored({"a": one, "b": one}))
    with pytest.raises(ValueError, match=r"item: it holds 7 clips \(0, 1, 2, 3, 4, ...\)"):
        Tracks.load(stored([one] * 7), item="goat")


def test_videos_of_jpeg_files() -> None:
    def jpeg(shade: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (48, 32), (shade, 0, 0)).save(buffer, "JPEG")
        return buffer.getvalue()

    content = {**entry(), "video": [jpeg(20 * t) for t in range(9)]}
    clip = clip_of("0", load_clips(stored([content]))["0"])
    assert clip.size == (48, 32) and clip.frames(5).shape == (5, 32, 48, 3)
    assert np.abs(clip.frames(5)[:, 0, 0, 0].astype(int) - 20 * np.arange(5)).max() <= 3
    assert Tracks.load(stored([content])).canvas.width == 48
    with pytest.raises(ValueError, match="a frame of the video is no readable JPEG"):
        Tracks.load(stored([{**content, "video": [b"no"] * 9}]))


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("a pickle ran code",))


class Calls:
    """Calls what a pickle of arrays may name, with arguments that such a pickle never has."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return (self.function, self.arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"goat": Evil()}, "asks for builtins.print, which is no numpy array"),
        ({"goat": np.array([Evil()], object)}, "which is no numpy array"),
        (Calls(np.ndarray, (10**12,)), "it is no pickle of arrays"),
        (Calls(np.dtype, "V999999999"), "it holds a _Dtype"),
        ({"a": {"video": Calls(np.dtype, "f4"), "points": 1, "occluded": 1}}, "a: it has a int where"),
    ],
)
def test_nothing_runs(value: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=message):
        Tracks.load(stored(value))
    assert capsys.readouterr().out == ""


def test_memory_is_bounded_by_the_file() -> None:
    huge = b"\x80\x02]r" + (1 << 30).to_bytes(4, "little") + b"."
    with pytest.raises(ValueError, match="numbers what it remembers beyond its own length"):
        load_pickle(io.BytesIO(huge))
    with pytest.raises(ValueError, match=f"more than {MOST_STEPS} steps"):
        load_pickle(io.BytesIO(b"\x80\x02" + b"N0" * (MOST_STEPS // 2) + b"N."))
    lying = pickle.dumps(np.zeros(4, np.uint8), 2).replace(b"K\x04\x85", b"M\xff\xff\x85")
    with pytest.raises(ValueError, match="whose bytes do not fit it"):
        load_pickle(io.BytesIO(lying)).array()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.zeros((9, 32, 48), np.uint8)}, "goat: video .* must be uint8"),
        ({"video": np.zeros((8, 32, 48, 3), np.uint8)}, "goat: video of 8 frames, .* must have the same length"),
        ({"occluded": np.zeros((2, 4), bool)}, r"goat: .* must be \[P, T, 2\]"),
        ({"occluded": np.zeros((2, 9))}, "goat: .* must be"),
        ({"points": np.zeros((2, 9, 2), int)}, "points be floats"),
        ({"points": [[1]]}, "goat: it has a list where an array should be"),
        ({"points": np.zeros((2, 9, 2), object)}, "array of objects"),
    ],
)
def test_other_contents_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracks.load(stored({"goat": {**entry(), **changes}}))
