"""Other systems' track files in the Space: what `Tracks.load` reads comes in through both doors, with their limits."""

import io
import json
import pickle

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from app_assets.track_files import read_track_file
from ardrag.tracks.tracks import Tracks
from tests.app_assets.conftest import png, started
from tests.ardrag.tracks.formats.test_fuzz import SIZE, samples, video_of_masks


WITHOUT_TIME = ("dragnuwa", "motionpro", "tora")
"""Formats of key points: the clip says how long they take."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {**samples(folder), "magicmotion": video_of_masks(folder / "a.mp4")}


@pytest.fixture(scope="module")
def running(pipeline):
    with started(pipeline, max_frames=97) as one:
        yield one


def bring(running, content, width=SIZE[0], height=SIZE[1], num_frames=13):
    size = {"width": width, "height": height, "num_frames": num_frames}
    return httpx.post(f"{running.url}/tracks", params=size, content=content, timeout=60)


def test_every_format_comes_in_as_tracks_load_reads_it(running, files):
    assert len(files) == 11, "nine systems, one of them in two protocols, and ours"
    for kind, content in files.items():
        answer = bring(running, content)
        assert answer.status_code == 200, answer.text
        known = {"num_frames": 13} if kind in WITHOUT_TIME else {}
        wanted = Tracks.load(io.BytesIO(content), image_size=SIZE, **known)
        assert Tracks.from_json(answer.json()["tracks"]) == wanted, kind
        assert wanted.num_frames == (13 if kind in WITHOUT_TIME else 81 if kind == "ati" else wanted.num_frames)


def test_two_arrays_come_as_one_file_and_several_clips_are_refused(running, tmp_path):
    """What Wan-Move hides stays hidden; of a TAP-Vid file with two clips nobody can tell which one is meant."""
    hidden = Tracks.from_points([[(0, 0.2, 0.5)], [(0, 0.2, 0.5), (5, 0.8, 0.5, 1, 0)]], num_frames=9)
    parts = hidden.export(tmp_path / "a_tracks.npy", "wan_move", image_size=SIZE)
    found = Tracks.from_json(bring(running, b"".join(part.read_bytes() for part in parts)).json()["tracks"])
    assert found.to_array().visible.tolist() == hidden.to_array().visible.tolist()
    assert not found.to_array().visible[6:, 1].any()
    arrays = {"video": np.zeros((9, 8, 8, 3), np.uint8), "points": np.full((2, 9, 2), 0.5, np.float32)}
    clip = {**arrays, "occluded": np.zeros((2, 9), bool)}
    answer = bring(running, pickle.dumps({"a": clip, "b": clip}))
    assert answer.status_code == 422
    assert "it holds 2 clips (a, b); name one, or bring a file of one alone" in answer.json()["message"]


def test_calls_take_them_for_the_pixels_of_their_picture(running, files, tmp_path):
    """The same video as with the same tracks as text; the answer says them in 0..1."""
    (tmp_path / "a.png").write_bytes(png(Image.effect_noise(SIZE, 80).convert("RGB")))
    client, made = Client(running.url, verbose=False), []
    image = handle_file(tmp_path / "a.png")
    (tmp_path / "a.npy").write_bytes(files["wan_move"])
    text = read_track_file(io.BytesIO(files["wan_move"]), SIZE, 9, 9).to_json()
    for tracks in ({"track_file": handle_file(tmp_path / "a.npy")}, {"tracks": text}, {}):
        made.append(list(client.submit(image=image, num_frames=9, steps=1, **tracks, api_name="/generate")))
    frames = [[step[0] for step in one] for one in made]
    assert frames[0] == frames[1] != frames[2] and len(frames[0]) == 4
    assert made[0][-1][2] == made[1][-1][2] and len(made[0][-1][2]["tracks"]) == 2
    both = {"track_file": handle_file(tmp_path / "a.npy"), "tracks": text}
    with pytest.raises(Exception, match="track_file: there are tracks too"):
        client.predict(image=image, num_frames=9, steps=1, **both, api_name="/generate")
    with pytest.raises(Exception, match="they last 9 frames, the clip 5; retime them"):
        client.predict(image=image, num_frames=5, steps=1, track_file=both["track_file"], api_name="/generate")


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(tmp_path):
    edits = json.dumps({**json.loads(Tracks.empty(9).to_json()), "edits": [{}] * 300}).encode()
    long = Tracks.from_points([[(0, 0.1, 0.1), (100, 0.2, 0.2)]], num_frames=101).to_json().encode()
    return {
        "code": (pickle.dumps({"a": Evil(tmp_path / "evil")}), "no pickle of arrays: it asks for"),
        "an empty file": (b"", "not JSON"),
        "a picture": (png(Image.new("RGB", (8, 8))), "in no format that is known"),
        "deep lists": (b"[" * 100_000, "not JSON"),
        "many edits": (edits, "300 edits, at most 256 here"),
        "many frames": (long, "they last 101 frames, the clip 97; retime them"),
        "broken": (b'{"schema": "ardrag.tracks/v1"', "not JSON"),
    }


def test_what_is_wrong_is_one_sentence_and_nothing_runs(running, tmp_path):
    for kind, (content, reason) in refused(tmp_path).items():
        answer = bring(running, content)
        assert answer.status_code == 422 and reason in answer.json()["message"], kind
        assert "Traceback" not in answer.text and str(tmp_path) not in answer.json()["message"]
    assert not (tmp_path / "evil").exists()
    assert "image_size: (0, 48) must be" in bring(running, b"[[[1, 2], [3, 4]]]", width=0).json()["message"]
    assert "num_frames" in bring(running, b"[[[1, 2], [3, 4]]]", num_frames=10**9).json()["message"]
    assert bring(running, b"[]", num_frames="many").status_code == 422
