"""To and from the Hub with its own client: two ways of loading, revisions, the cache, broken uploads, refusals."""

import json
import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status

from ardrag.home import __version__
from pipelines.hub.client import clear_errors, push_folder, transport_error
from tests.hub_process import HubProcess
from tests.hub_server import Blob, HubServer, Repository, refusal


MAKE = """
import hashlib, logging, torch
import numpy as np
from PIL import Image

torch.set_num_threads(1)

def make(pipe):
    picture = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    tracks = pipe.tracks_class.from_points([[(0, 0.2, 0.3), (8, 0.8, 0.4)]], num_frames=9)
    made = pipe(picture, "a star", tracks=tracks, output_type="np", generator=torch.Generator().manual_seed(0))
    return hashlib.sha256(made.frames.tobytes()).hexdigest()
"""
OURS = (
    MAKE + "from pipelines import ARDragPipeline\nprint(make(ARDragPipeline.from_pretrained({name!r}, **{options})))"
)
DIFFUSERS = MAKE + (
    "import importlib.util\nassert importlib.util.find_spec('ardrag') is None\n"
    "from diffusers import DiffusionPipeline\n"
    "options = dict(custom_pipeline='pipeline', trust_remote_code=True, **{options})\n"
    "pipe = DiffusionPipeline.from_pretrained({name!r}, **options)\n"
    "print(make(pipe))\n{more}"
)

TRIED_AGAIN_AT_ONCE = """
from unittest.mock import patch
from pipelines import ARDragPipeline
from pipelines.hub.client import push_folder
with patch("time.sleep"):
    {call}
"""
"""A client's call without its pauses between two tries."""


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    """The tiny pipeline, saved."""
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pushed(hub, hub_process, folder):
    """alice/tiny on the Hub; what its pipeline makes for the seed before it was pushed."""
    code = OURS.format(name=str(folder), options={}) + (
        f"\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\npipe.push_to_hub('alice/tiny')"
    )
    return hub_process.run(code).strip()


@pytest.fixture
def fresh(hub, tmp_path):
    """Starts processes with an empty cache."""
    processes = []

    def start(home="", **more):
        home = tmp_path / (home or f"home{len(processes)}")
        home.mkdir(exist_ok=True)
        processes.append(HubProcess(hub, home, tmp_path, **more))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(autouse=True)
def well(hub):
    """The Hub forgets its moods after every test."""
    yield
    hub.before, hub.quota, hub.part_size, hub.cut = None, None, None, None


def without_package(code, hub, home, tmp_path, **variables):
    """Run ``code`` in a new process that cannot import this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {**hub.environment(home), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_pushed_and_loaded_with_this_package_makes_the_same_pixels(hub, hub_process, pushed, tagged):
    assert hub_process.run(OURS.format(name="alice/tiny", options={"revision": "v1"})).strip() == pushed
    files = hub.repository("alice/tiny").files
    weights = {path for path in files if path.endswith(".safetensors")}
    assert {path.split("/")[0] for path in weights} == {"transformer", "vae", "text_encoder", "image_encoder"}
    code = {"pipeline.py", "transformer/ardrag.transformer.py", "scheduler/ardrag.flow.py"}
    assert code | {"README.md", "model_index.json"} < files.keys()
    assert not [path for path in files if Path(path).suffix in (".bin", ".pt", ".pkl")]
    assert [commit.title for commit in hub.repository("alice/tiny").commits[1:]] == [
        "Upload ARDragPipeline",
        "brighter",
    ]


def test_loaded_without_this_package_makes_the_same_pixels(hub, pushed, tagged, tmp_path):
    saved = f"pipe.save_pretrained({str(tmp_path / 'copy')!r})"
    code = DIFFUSERS.format(name="alice/tiny", options={"revision": "v1"}, more=saved)
    printed, errors = without_package(code, hub, tmp_path / "home", tmp_path)
    assert printed == [pushed]
    assert "not found in your environment" not in errors and "Expected types" not in errors
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["transformer"] == ["ardrag.transformer", "CausalWanTransformer"]
    assert index["scheduler"] == ["ardrag.flow", "FewStepScheduler"]


@pytest.mark.slow
def test_without_a_network_and_this_package_a_folder_is_loaded(hub, hub_process, pushed, tagged, tmp_path):
    """diffusers asks the Hub for a repository's code even offline; with the folder in the cache it need not."""
    place = hub_process.run(
        "from huggingface_hub import snapshot_download; print(snapshot_download('alice/tiny', revision='v1'))"
    )
    code = DIFFUSERS.format(name=place.strip(), options={}, more="")
    printed, _ = without_package(code, hub, tmp_path / "home", tmp_path, HF_HUB_OFFLINE="1")
    assert printed == [pushed]


@pytest.fixture(scope="module")
def tagged(hub, hub_process, pushed):
    """alice/tiny goes on; the tag v1 and the returned commit stay at what was pushed first."""
    first = hub.repository("alice/tiny").refs["main"]
    hub_process.run(
        f"""
        from huggingface_hub import HfApi
        from pipelines import ARDragPipeline
        HfApi().create_tag("alice/tiny", tag="v1", revision={first!r})
        pipe = ARDragPipeline.from_pretrained("alice/tiny")
        pipe.transformer.proj_out.bias.data += 0.3
        pipe.push_to_hub("alice/tiny", commit_message="brighter")
        """
    )
    return first


def test_a_revision_is_pinned_and_the_cache_is_used(hub, hub_process, pushed, tagged):
    assert hub_process.run(OURS.format(name="alice/tiny", options={})).strip() != pushed
    hub.requests.clear()
    for revision in (tagged, "v1"):
        assert hub_process.run(OURS.format(name="alice/tiny", options={"revision": revision})).strip() == pushed
    assert not [path for _, path in hub.requests if path.startswith("/large/")]  # nothing came over the wire again


def test_offline_the_cache_is_enough(hub, hub_process, pushed, tagged):
    hub_process.run(OURS.format(name="alice/tiny", options={"revision": "v1"}))
    options = {"revision": "v1", "local_files_only": True}
    hub.requests.clear()
    assert hub_process.run(OURS.format(name="alice/tiny", options=options)).strip() == pushed
    assert hub.requests == []


@pytest.mark.slow
def test_an_upload_that_was_killed_is_completed_without_a_duplicate(hub, folder, fresh):
    hub.part_size = 20_000
    arrived, killed = threading.Event(), threading.Event()

    def hold(method, path):
        if method == "PUT" and len(hub.large) - before >= 1:
            arrived.set()
            killed.wait(30)

    before = len(hub.large)
    hub.before = hold
    push = f"from pipelines import ARDragPipeline\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\n"
    push += "pipe.transformer.proj_out.bias.data += 1\npipe.vae.quant_conv.bias.data += 1\n"
    push += "pipe.text_encoder.shared.weight.data += 1\npipe.push_to_hub('alice/killed')"
    process = fresh()
    process.start(push)
    assert arrived.wait(60)
    process.kill()
    killed.set()
    hub.before = None
    repository = hub.repository("alice/killed")
    assert len(repository.commits) == 1 and set(repository.files) == {".gitattributes"}
    there = set(hub.large)
    hub.requests.clear()
    fresh().run(push)
    assert len(repository.commits) == 2
    sent = {path.split("/")[2] for method, path in hub.requests if method == "PUT"}
    assert sent and not sent & there  # what had arrived is not sent again
    weights = [blob.oid for path, blob in repository.files.items() if path.endswith(".safetensors")]
    assert len(weights) == len(set(weights)) == 4 and set(weights) <= set(hub.large)


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_wrong", "alice/secret", "model: alice/secret refuses the token; log in with `hf auth login` again"),
        ("hf_alice", "alice/none", "model: alice/none is not on the Hub, or is private"),
        ("hf_bob", "alice/secret", "model: alice/secret is not on the Hub, or is private; .* if it is private"),
        ("hf_alice", "alice/empty", "model: alice/empty has no model_index.json; it is no pipeline"),
        ("hf_alice", "alice/pickled", "model: alice/pickled has no safetensors in vae; pickled weights"),
        ("hf_alice", "alice/other", "model: alice/other is a WanPipeline, not an ARDragPipeline"),
        ("hf_alice", "alice/newer", "has depth in transformer/config.json, which ardrag .* does not know; update"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_sentence(hub, hub_process, pushed, stocked, token, name, message):
    code = f"from pipelines import ARDragPipeline\nARDragPipeline.from_pretrained({name!r}, token={token!r})"
    with pytest.raises(RuntimeError, match=f"^ValueError: {'.*' if name == 'alice/newer' else ''}{message}") as caught:
        hub_process.run(code)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def stocked(hub, pushed):
    """Repositories that something is wrong with, next to alice/tiny."""
    good = hub.repository("alice/tiny").files

    def changed(**texts):
        return {**good, **{path: Blob.regular(text.encode()) for path, text in texts.items()}}

    def config(path, **fields):
        return {path: json.dumps(json.loads(hub.content(good[path])) | fields)}

    weights = "vae/diffusion_pytorch_model.safetensors"
    pickled = {path: blob for path, blob in good.items() if path != weights}
    wrong = {
        "secret": good,
        "empty": {"README.md": Blob.regular(b"nothing here")},
        "pickled": {**pickled, "vae/diffusion_pytorch_model.bin": Blob.regular(b"\x80\x04.")},
        "other": changed(**config("model_index.json", _class_name="WanPipeline")),
        "newer": changed(**config("transformer/config.json", depth=3)),
    }
    for name, files in wrong.items():
        repository = Repository("model", f"alice/{name}", private=name == "secret")
        repository.commit("made", files)
        hub.repositories["model", repository.name] = repository


def test_a_revision_that_is_not_there(hub_process, pushed):
    with pytest.raises(RuntimeError, match="ValueError: model: alice/tiny has no such revision; give a branch, tag"):
        hub_process.run(OURS.format(name="alice/tiny", options={"revision": "v7"}))


@pytest.mark.parametrize(
    ("target", "prepare", "message"),
    [
        ("bob/tiny", None, "hub: bob/tiny may not be written to with this token .*rights.*; use a token with write"),
        ("alice/full", "quota", "hub: alice/full has no room left .*storage limit.*; delete what is not needed"),
        ("alice/busy", "busy", "hub: alice/busy is refused for now, too many requests; try again in a few minutes"),
    ],
)
def test_what_cannot_be_pushed_is_refused_and_nothing_is_lost(hub, hub_process, folder, target, prepare, message):
    def busy(method, path):
        if "/preupload/" in path or "/commit/" in path:
            raise refusal(429, "Too many requests")

    hub.quota = 10 if prepare == "quota" else None
    hub.before = busy if prepare == "busy" else None
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code = TRIED_AGAIN_AT_ONCE.format(call=f"push_folder({str(folder)!r}, {target!r})")
    with pytest.raises(RuntimeError, match=f"^ValueError: {message}.*; local files are as they were$"):
        hub_process.run(code)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(status, message, code=""):
    """The client's error for an answer of the Hub."""
    library = import_module(transport_error().__module__.split(".")[0])
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    response = library.Response(status, headers=headers, request=library.Request("GET", "http://hub/api/models/a/b"))
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused(403, "Access to a/b is restricted", "GatedRepo"), "is gated; ask for access on its page"),
        (refused(402, "Payment required: storage limit"), "has no room left .*storage limit"),
        (refused(500, "out of order"), "is refused by the Hub .500: .*out of order"),
        (OfflineModeIsEnabled("offline"), "is not whole in the cache"),
        (transport_error()("no route"), "cannot be had .*no route.*; check the network and try again"),
        (OSError(28, "No space left on device"), "cannot be had .*No space left on device"),
    ],
)
def test_one_sentence_for_each(error, message):
    for raised in (error, RuntimeError("Error while uploading 'a' to the Hub.")):
        if raised is not error:
            raised.__cause__ = error
        with (
            pytest.raises(ValueError, match=f"^hub: a/b {message}.*; all is kept$"),
            clear_errors("hub: a/b", "; all is kept"),
        ):
            raise raised


@pytest.mark.slow
def test_no_network(tmp_path):
    gone = HubServer()
    gone.close()
    process = HubProcess(gone, tmp_path, tmp_path)
    for call in ("ARDragPipeline.from_pretrained('alice/tiny')", "push_folder('.', 'alice/tiny')"):
        with pytest.raises(RuntimeError, match="ValueError: .*: alice/tiny .*(out of reach|check the network)"):
            process.run(TRIED_AGAIN_AT_ONCE.format(call=call))
    process.kill()


LISTEN = """
import logging
class Messages(logging.Handler):
    def emit(self, record):
        print(record.getMessage())
logging.getLogger("pipelines.hub.client").addHandler(messages := Messages())
from pipelines import ARDragPipeline
ARDragPipeline.from_pretrained({name!r})
logging.getLogger("pipelines.hub.client").removeHandler(messages)
"""


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("same", lambda code: code, ""),
        ("edited", lambda code: code.replace("ODE", "SDE"), "alice/edited: its code is not what its stamp says"),
        ("unstamped", lambda code: "print(1)\n", "alice/unstamped: its code is not what its stamp says"),
        (
            "old",
            lambda code: code.replace(f"ardrag {__version__}", "ardrag 0.0.1", 1),
            "alice/old: written by ardrag 0.0.1",
        ),
    ],
)
def test_changed_code_is_told_and_never_run(hub, hub_process, pushed, name, change, message):
    good = hub.repository("alice/tiny").files
    code = change(hub.content(good["pipeline.py"]).decode())
    repository = hub.repositories["model", f"alice/{name}"] = Repository("model", f"alice/{name}")
    repository.commit("made", {**good, "pipeline.py": Blob.regular(code.encode())})
    printed = hub_process.run(LISTEN.format(name=f"alice/{name}")).strip()
    assert printed.startswith(message) and (message or not printed)


def test_a_transformer_goes_alone(hub_process, folder):
    hub_process.run(
        f"""
        import torch
        from ardrag import CausalWanTransformer
        first = CausalWanTransformer.from_pretrained({str(folder)!r}, subfolder="transformer")
        first.push_to_hub("alice/transformer")
        second = CausalWanTransformer.from_pretrained("alice/transformer")
        assert second.config.input_layout == first.config.input_layout
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        """
    )


def test_other_shards_take_the_place_of_the_old_ones(hub, hub_process, folder):
    """And `save_pretrained` pushes too."""
    code = f"from pipelines import ARDragPipeline\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\n"
    hub_process.run(code + "pipe.push_to_hub('alice/shards', max_shard_size='20KB')")
    shards = [path for path in hub.repository("alice/shards").files if path.startswith("transformer/")]
    assert len([path for path in shards if path.endswith(".safetensors")]) > 1
    hub_process.run(code + "pipe.save_pretrained('copy', push_to_hub=True, repo_id='alice/shards')")
    after = {path for path in hub.repository("alice/shards").files if path.startswith("transformer/")}
    assert {Path(path).name for path in after} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "ardrag.transformer.py",
    }


def test_pickles_are_neither_written_nor_pushed(pipeline, tmp_path):
    with pytest.raises(ValueError, match="safe_serialization: pickled weights are not written"):
        pipeline.save_pretrained(tmp_path, safe_serialization=False)
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="holds model.pkl; pickles do not go to the Hub"):
        push_folder(tmp_path, "alice/any")


def test_a_card_that_a_person_wrote_stays(hub, hub_process, folder):
    code = f"from pipelines import ARDragPipeline\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\n"
    push = code + "pipe.push_to_hub('alice/card')\n"
    hub_process.run(push)
    hub_process.run(
        "from huggingface_hub import HfApi\n"
        "HfApi().upload_file(path_or_fileobj=b'# Mine', path_in_repo='README.md', repo_id='alice/card')"
    )
    hub_process.run(push)
    assert hub.content(hub.repository("alice/card").files["README.md"]) == b"# Mine"


def test_a_name_without_an_owner_is_the_users_own(hub, hub_process, folder):
    code = f"from pipelines import ARDragPipeline\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\n"
    hub_process.run(code + "pipe.push_to_hub('mine', private=True)")
    repository = hub.repository("alice/mine")
    assert repository.private and b'from_pretrained("alice/mine")' in hub.content(repository.files["README.md"])
