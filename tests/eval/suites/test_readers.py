"""Readers on small files of the exact formats, and what they say of files that are not."""

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.tracks import Tracks
from eval.suites.case import first_readable
from eval.suites.folder import FolderSuite, write_case
from eval.suites.mcbench import McBenchSuite
from eval.suites.movebench import MoveBenchSuite
from eval.suites.open import open_suite
from eval.suites.sprites import SpriteSuite
from eval.suites.tapvid import TapVidSuite
from eval.suites.vipseg import VipSegSuite
from pipelines.video import write_video


def picture(path, width=64, height=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


class TestFolder:
    def make(self, folder):
        case = SpriteSuite().case(3, 9)
        write_case(case, folder)
        return case

    def test_what_is_written_is_read(self, tmp_path):
        case = self.make(tmp_path)
        suite = FolderSuite(tmp_path)
        found = suite.case(0, 33)
        assert suite.names() == ["003"] and found.prompt == case.prompt and found.num_frames == 9
        assert (found.picture == case.picture).all() and found.truth is None
        assert (found.tracks.to_array().xy == case.tracks.to_array().xy).all()
        write_video(list(case.truth), tmp_path / "003.mp4", 16)
        assert FolderSuite(tmp_path).case(0, 33).truth.shape == (9, 128, 128, 3)

    def test_digest_changes_with_the_files(self, tmp_path):
        self.make(tmp_path)
        before = FolderSuite(tmp_path).digest()
        (tmp_path / "003.txt").write_text("another prompt")
        assert FolderSuite(tmp_path).digest() != before

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="no folder"):
            FolderSuite(tmp_path / "none")
        with pytest.raises(ValueError, match="holds no .*tracks.json"):
            FolderSuite(tmp_path)
        (tmp_path / "x.tracks.json").write_text("{}")
        with pytest.raises(ValueError, match=r"x.tracks.json, but no picture x.png"):
            FolderSuite(tmp_path)
        picture(tmp_path / "x.png")
        with pytest.raises(ValueError, match="x.tracks.json: "):
            FolderSuite(tmp_path).case(0, 33)

    def test_tracks_of_another_picture_and_of_the_cut_one(self, tmp_path):
        picture(tmp_path / "x.png", 64, 128)
        document = json.loads(Tracks.from_points([[(0, 0.5, 0.1)]], num_frames=17, width=64, height=64).to_json())
        (tmp_path / "x.tracks.json").write_text(json.dumps(document))
        with pytest.raises(ValueError, match="x.tracks.json: canvas: the tracks were drawn on 64 x 64"):
            FolderSuite(tmp_path).case(0, 9)
        document["canvas"]["fit"] = "cover"
        (tmp_path / "x.tracks.json").write_text(json.dumps(document))
        tracks = FolderSuite(tmp_path).case(0, 9).tracks
        assert tracks.num_frames == 9 and tracks.to_array().xy[0, 0] == pytest.approx([0.5, 0.3])


class TestMoveBench:
    def make(self, root, points=None):
        t = np.arange(17, dtype=np.float32)
        xy = np.stack([np.stack([10 + t, 20 + 0 * t], -1), np.stack([30 + 0 * t, 5 + t], -1)], axis=1)[None]
        seen = np.ones(xy.shape[:3], bool)
        seen[0, 5:, 1] = False
        picture(root / "first_frame" / "v_0.jpg")
        folder = root / "track" / "single"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "v_0_tracks.npy", xy if points is None else points)
        np.save(folder / "v_0_visibility.npy", seen)
        (root / "single_track.txt").write_text("# list\nv_0.jpg,A cup, moving right\n\n")
        return root / "single_track.txt", xy, seen

    def test_reads(self, tmp_path):
        listing, xy, seen = self.make(tmp_path / "en")
        case = MoveBenchSuite(listing).case(0, 33)
        arrays = case.tracks.to_array()
        assert (case.name, case.prompt, case.num_frames) == ("v_0", "A cup, moving right", 17)
        assert arrays.xy * [64, 48] == pytest.approx(xy[0], abs=1e-4) and (arrays.visible == seen[0]).all()
        write_video([case.picture] * 17, self.video(tmp_path), 16)
        assert MoveBenchSuite(listing).case(0, 9).truth.shape == (9, 48, 64, 3)

    def video(self, tmp_path):
        (tmp_path / "en" / "video").mkdir()
        return tmp_path / "en" / "video" / "v_0.mp4"

    def test_errors(self, tmp_path):
        listing, xy, _ = self.make(tmp_path / "en", points=np.zeros((1, 17, 3, 2)))
        with pytest.raises(ValueError, match=r"v_0_tracks.npy: tracks .1, 17, 3, 2. .* and .1, 17, 2. bool visib"):
            MoveBenchSuite(listing).case(0, 33)
        np.save(tmp_path / "en" / "track" / "single" / "v_0_tracks.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(ValueError, match="v_0_tracks.npy: it holds no array of numbers"):
            MoveBenchSuite(listing).case(0, 33)
        (tmp_path / "en" / "first_frame" / "v_0.jpg").unlink()
        with pytest.raises(ValueError, match="v_0.jpg is missing or no picture"):
            MoveBenchSuite(listing).case(0, 33)
        listing.write_text("v_0.jpg without a comma\n")
        with pytest.raises(ValueError, match="it must be <id>.jpg,<caption>"):
            MoveBenchSuite(listing)


class Evil:
    def __reduce__(self):
        return (print, ("a pickle ran code",))


class TestTapVid:
    def entry(self, frames=9):
        t = np.linspace(0.2, 0.6, frames, dtype=np.float32)
        points = np.stack([np.stack([t, 0.5 + 0 * t], -1), np.stack([0.3 + 0 * t, t], -1)])
        occluded = np.zeros((2, frames), bool)
        occluded[1, :3] = True
        video = np.random.default_rng(0).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)
        return {"video": video, "points": points, "occluded": occluded}

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_reads(self, tmp_path, protocol):
        entry = self.entry()
        path = tmp_path / "davis.pkl"
        path.write_bytes(pickle.dumps({"goat": entry, "bear": self.entry(6)}, protocol))
        suite = TapVidSuite(path)
        assert suite.names() == ["bear", "goat"] and suite.case(0, 33).num_frames == 5
        case = suite.case(1, 33)
        arrays = case.tracks.to_array()
        assert (arrays.visible == ~entry["occluded"].T).all() and (case.truth == entry["video"]).all()
        assert arrays.xy[arrays.visible] == pytest.approx(entry["points"].swapaxes(0, 1)[arrays.visible], abs=1e-6)

    def test_a_list_of_jpeg_videos(self, tmp_path):
        buffer = io.BytesIO()
        Image.new("RGB", (48, 32), (200, 0, 0)).save(buffer, "JPEG")
        path = tmp_path / "kinetics.pkl"
        path.write_bytes(pickle.dumps([{**self.entry(), "video": [buffer.getvalue()] * 9}]))
        case = TapVidSuite(path).case(0, 5)
        assert case.name == "0" and case.picture.shape == (32, 48, 3) and case.truth.shape == (5, 32, 48, 3)

    def test_code_in_a_pickle_does_not_run(self, tmp_path, capsys):
        path = tmp_path / "davis.pkl"
        path.write_bytes(pickle.dumps({"goat": {**self.entry(), "video": Evil()}}))
        with pytest.raises(ValueError, match="davis.pkl: .*asks for builtins.print, which is no numpy array"):
            TapVidSuite(path)
        assert capsys.readouterr().out == ""

    def test_one_bad_clip_leaves_the_others(self, tmp_path):
        path = tmp_path / "davis.pkl"
        lost = self.entry()
        lost["points"][1, 6] = np.nan
        bad = {"cat": {"video": 1}, "dog": {**self.entry(), "occluded": np.zeros((2, 4), bool)}, "eel": lost}
        path.write_bytes(pickle.dumps({**bad, "goat": self.entry()}))
        suite = TapVidSuite(path)
        for index, message in enumerate(("cat must have the arrays", "dog: video", "track 1 is visible in frame 6")):
            with pytest.raises(ValueError, match=rf"davis.pkl, {suite.names()[index]}: .*{message}"):
                suite.case(index, 33)
        assert suite.case(3, 33).num_frames == 9 and first_readable(suite, range(4), 33).name == "goat"


class TestVipSeg:
    def make(self, folder, content):
        (folder / "trajectories").mkdir(parents=True)
        (folder / "trajectories" / "12_ab.json").write_text(json.dumps(content))
        for t in range(10):
            picture(folder / "images" / "12_ab" / f"{t:08d}.jpg")

    def test_reads(self, tmp_path):
        path = [[4.0 * t, 24.0] for t in range(15)]
        self.make(tmp_path, {"7": path, "9": path[:6]})
        case = VipSegSuite(tmp_path).case(0, 33)
        arrays = case.tracks.to_array()
        assert case.num_frames == 13 and case.truth is None  # 10 frames are there, 13 are needed
        assert arrays.xy[:, 0] * [64, 48] == pytest.approx(np.array(path[:13]), abs=1e-4)
        assert arrays.visible.sum(0).tolist() == [13, 6]
        assert VipSegSuite(tmp_path).case(0, 9).truth.shape == (9, 48, 64, 3)

    def test_errors(self, tmp_path):
        self.make(tmp_path, {"7": [[1, 2, 3]]})
        with pytest.raises(ValueError, match="12_ab.json: track '7' is not a list of"):
            VipSegSuite(tmp_path).case(0, 33)
        (tmp_path / "trajectories" / "none.json").write_text("{}")
        with pytest.raises(ValueError, match="images/none holds no frame"):
            VipSegSuite(tmp_path).case(1, 33)
        with pytest.raises(ValueError, match="holds no trajectories"):
            VipSegSuite(tmp_path / "images")


class TestMcBench:
    def make(self, folder, content):
        picture(folder / "animal" / "1" / "first_frame.png")
        (folder / "animal" / "1" / "meta_data.json").write_text(json.dumps(content))

    def test_reads(self, tmp_path):
        self.make(tmp_path, {"traj_key_points": [[[8, 12], [32, 12], [32, 36]], [[60, 6]]]})
        case = McBenchSuite(tmp_path).case(0, 33)
        arrays = case.tracks.to_array()
        assert (case.name, case.num_frames, case.categories) == ("animal_1", 17, ("animal",))
        assert arrays.xy[[0, 8, 16], 0] * [64, 48] == pytest.approx(np.array([[8, 12], [32, 12], [32, 36]]), abs=1e-4)
        assert arrays.xy[:, 1] * [64, 48] == pytest.approx(np.tile([60, 6], (17, 1)), abs=1e-4)
        assert arrays.visible.all()

    def test_errors(self, tmp_path):
        self.make(tmp_path, {"points": []})
        with pytest.raises(ValueError, match="meta_data.json: it has no traj_key_points"):
            McBenchSuite(tmp_path).case(0, 33)
        (tmp_path / "animal" / "1" / "first_frame.png").unlink()
        with pytest.raises(ValueError, match="first_frame.png is missing"):
            McBenchSuite(tmp_path).case(0, 33)


def test_names_of_suites(tmp_path):
    assert open_suite("sprites").name == "sprites"
    for text in ("sprite", "nothing:x", "folder:", "sprites:x"):
        with pytest.raises(
            ValueError, match="suite: .* is unknown; use sprites, photos, small, crossing, or one of folder, movebench"
        ):
            open_suite(text)
    write_case(SpriteSuite().case(0, 5), tmp_path)
    assert len(open_suite(f"folder:{tmp_path}")) == 1
    assert Tracks.load(tmp_path / "000.tracks.json").num_frames == 5


def test_a_size_brings_every_case_to_one_canvas():
    suite = open_suite("sprites", "96x64")
    case = suite.case(0, 5)
    assert case.picture.shape == (64, 96, 3) and case.truth.shape == (5, 64, 96, 3) and case.sprites is None
    assert suite.digest() != open_suite("sprites").digest() and len(suite) == 206 and suite.names()[0] == "000"
    assert open_suite("sprites", "128x128").case(0, 5).sprites is not None
    for size in ("96", "96x", "x64", "0x64", "96*64"):
        with pytest.raises(ValueError, match="size: .* is not WIDTHxHEIGHT"):
            open_suite("sprites", size)
