"""A Hub to test against: the protocol of huggingface.co as its own client speaks it, in memory, on a local port.

Repositories (models, datasets, Spaces) with commits, branches and tags; regular and LFS files, the latter in one or in
several parts; listing, downloading with ETag, redirect and range; tokens, private repositories, quotas. A client
reaches it through ``HF_ENDPOINT``, which is read at import: see `HubServer.environment`. Xet is left out, as for a
client without the ``hf_xet`` package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote


LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".bin", ".png", ".mp4", ".pkl", ".pt")
TIME = "2026-01-01T00:00:00.000Z"


class Answer(Exception):
    """Ends a request with this status, body and headers."""

    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def refusal(status: int, message: str, code: str = "") -> Answer:
    """An error as the Hub words it."""
    headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
    return Answer(status, {"error": message}, **headers)


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its content where it is a regular file, else its place in the large file storage."""

    size: int
    oid: str
    content: bytes | None = None

    @classmethod
    def regular(cls, content: bytes) -> Blob:
        return cls(len(content), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), content)


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repository:
    kind: str
    name: str
    private: bool = False
    sdk: str | None = None
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, Blob], branch: str = "main") -> Commit:
        oid = hashlib.sha1(f"{self.kind}/{self.name}/{len(self.commits)}/{title}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        self.refs[branch] = oid
        return self.commits[-1]

    def at(self, revision: str) -> Commit:
        oid = self.refs.get(revision, revision)
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    @property
    def files(self) -> dict[str, Blob]:
        """Files of the branch main."""
        return self.at("main").files


class HubServer:
    """The Hub. ``users`` maps tokens to names; a name that ends in ``:read`` may not write.

    ``requests`` is a log of (method, path). ``before`` is called with (method, path) before a request is served; it
    may raise `Answer`, or wait. ``quota``: bytes of large files that fit. ``cut``: after so many bytes of a large file
    the connection breaks, once. ``ranges`` is a log of the parts that were asked for.
    """

    def __init__(self) -> None:
        self.users = {"hf_alice": "alice", "hf_bob": "bob", "hf_reader": "alice:read"}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_size: int | None = None
        self.quota: int | None = None
        self.cut: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.before: Callable[[str, str], None] | None = None
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.store_url = f"http://localhost:{self._http.server_address[1]}"  # another host, as the Hub's storage is
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def environment(self, home: Any, token: str = "hf_alice") -> dict[str, str]:
        """Variables of a process that is to take this for the Hub, with its caches in ``home``."""
        found = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        found |= {"HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return found | {"HF_TOKEN": token}

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]

    def content(self, blob: Blob) -> bytes:
        return self.large[blob.oid] if blob.content is None else blob.content


class Handler(BaseHTTPRequestHandler):
    """Serves one connection of a `HubServer`."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        self.serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.read_chunks()
        self.path, _, query = self.path.partition("?")
        self.query = {name: values[0] for name, values in parse_qs(query).items()}
        try:
            self.hub.requests.append((self.command, unquote(self.path)))
            if self.hub.before is not None:
                self.hub.before(self.command, unquote(self.path))
            self.route()
            raise refusal(404, f"no such endpoint: {self.command} {self.path}")
        except Answer as answer:
            self.send(answer)
        except ConnectionError:
            self.close_connection = True

    def read_chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), "Content-Type": "application/json"} | answer.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut, body = self.hub.cut, answer.body
        if cut is not None and self.command == "GET" and self.path.startswith("/large/") and len(body) > cut:
            self.hub.cut, body, self.close_connection = None, body[:cut], True
        if self.command != "HEAD":
            self.wfile.write(body)

    # Who may do what

    def user(self) -> tuple[str | None, bool]:
        """Name of who asks (None: nobody said), and whether the token may write."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not token:
            return None, False
        if token not in self.hub.users:
            raise refusal(401, "Invalid credentials in Authorization header")
        name, _, role = self.hub.users[token].partition(":")
        return name, role != "read"

    def open(self, kind: str, name: str, write: bool = False) -> Repository:
        user, may_write = self.user()
        owner = name.split("/")[0]
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and user != owner):
            raise refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and (user != owner or not may_write):
            raise refusal(403, f"Forbidden: you must be in a role that can write to {name}")
        return repository

    # Endpoints

    def route(self) -> None:
        api = r"/api/(model|dataset|space)s/([^/]+/[^/]+)"
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("GET", r"/api/whoami-v2", self.whoami),
            ("POST", r"/api/repos/create", self.create),
            ("POST", r"/api/validate-yaml", self.validate_yaml),
            ("POST", api + r"/preupload/([^/]+)", self.preupload),
            ("POST", api + r"/commit/([^/]+)", self.commit),
            ("POST", api + r"/paths-info/([^/]+)", self.paths_info),
            ("POST", api + r"/tag/([^/]+)", self.tag),
            ("GET", api + r"/refs", self.refs),
            ("GET", api + r"/commits/([^/]+)", self.commits),
            ("GET", api + r"/tree/([^/]+)(/.*)?", self.tree),
            ("GET", api + r"/revision/([^/]+)", self.info),
            ("GET", api, self.info),
            ("POST", r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.lfs_batch),
            ("PUT", r"/lfs/(\w+)(?:/(\d+))?", self.lfs_put),
            ("POST", r"/lfs/(\w+)", self.lfs_complete),
            ("POST", r"/lfs-verify/(\w+)", self.lfs_verify),
            ("GET", r"/large/(\w+)", self.large_file),
            ("GET", r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        ]
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, endpoint in routes:
            match = re.fullmatch(pattern, self.path)
            if match and wanted == method:
                endpoint(*(part and unquote(part) for part in match.groups()))

    def whoami(self) -> None:
        user, _ = self.user()
        if user is None:
            raise refusal(401, "Invalid username or password.")
        raise Answer(200, {"type": "user", "name": user, "orgs": []})

    def create(self) -> None:
        wanted, (user, may_write) = json.loads(self.body), self.user()
        if user is None:
            raise refusal(401, "Invalid username or password.")
        owner, kind = wanted.get("organization") or user, wanted.get("type") or "model"
        if owner != user or not may_write:
            raise refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        name = f"{owner}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        with self.hub.lock:
            if (kind, name) in self.hub.repositories:
                raise Answer(409, {"url": url, "error": "You already created this repo"})
            repository = Repository(kind, name, wanted.get("visibility") == "private", wanted.get("sdk"))
            repository.commit("initial commit", {".gitattributes": Blob.regular(b"*.safetensors filter=lfs\n")})
            self.hub.repositories[kind, name] = repository
        raise Answer(200, {"url": url, "name": name})

    def validate_yaml(self) -> None:
        import yaml

        asked = json.loads(self.body)
        front = re.match(r"---\n(.*?)\n---\n", asked["content"], flags=re.DOTALL)
        found = yaml.safe_load(front[1]) if front else {}
        errors = [] if isinstance(found, dict) else ["metadata is no mapping"]
        if asked["repoType"] == "space" and len(found.get("short_description", "")) > 60:
            errors.append('"short_description" length must be less than or equal to 60 characters long')
        for entry in found.get("model-index", []) if isinstance(found, dict) else []:
            for result in entry["results"]:
                errors += [
                    f"model-index: {name} is missing" for name in ("task", "dataset", "metrics") - result.keys()
                ]
        messages = [{"message": error} for error in errors]
        raise Answer(400 if errors else 200, {"errors": messages, "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        known = self.open(kind, name, write=True).at(revision).files
        found = []
        for file in json.loads(self.body)["files"]:
            large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10 * 2**20
            entry = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            found.append(entry | ({"oid": known[file["path"]].oid} if file["path"] in known else {}))
        raise Answer(200, {"files": found})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self.open(kind, name, write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        with self.hub.lock:
            files = dict(repository.at(revision).files)
            for value in (line["value"] for line in lines if line["key"] == "file"):
                files[value["path"]] = Blob.regular(base64.b64decode(value["content"]))
            for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
                if value["oid"] not in self.hub.large:
                    raise refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = Blob(len(self.hub.large[value["oid"]]), value["oid"])
            for value in (line["value"] for line in lines if line["key"] == "deletedFile"):
                del files[value["path"]]
            for value in (line["value"] for line in lines if line["key"] == "deletedFolder"):
                files = {path: blob for path, blob in files.items() if not path.startswith(value["path"])}
            made = repository.commit(lines[0]["value"]["summary"], files, revision)
        url = f"{self.hub.url}/{name}/commit/{made.oid}"
        raise Answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url})

    def tag(self, kind: str, name: str, revision: str) -> None:
        repository = self.open(kind, name, write=True)
        repository.refs[json.loads(self.body)["tag"]] = repository.at(revision).oid
        raise Answer(200, {})

    def refs(self, kind: str, name: str) -> None:
        refs = self.open(kind, name).refs
        branches = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": oid} for ref, oid in refs.items()]
        raise Answer(200, {"branches": branches, "tags": [], "converts": []})

    def commits(self, kind: str, name: str, revision: str) -> None:
        repository = self.open(kind, name)
        repository.at(revision)
        found = [
            {"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": TIME}
            for commit in reversed(repository.commits)
        ]
        raise Answer(200, found)

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self.open(kind, name)
        commit = repository.at(revision)
        found: dict[str, Any] = {"_id": "0", "id": name, "sha": commit.oid, "private": repository.private}
        found |= {"siblings": [{"rfilename": path} for path in commit.files], "tags": [], "lastModified": TIME}
        found |= {"downloads": 0, "likes": 0, "disabled": False, "gated": False, "modelId": name}
        raise Answer(200, found)

    def entry(self, path: str, blob: Blob) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
        if blob.content is None:
            found["lfs"] = {"oid": blob.oid, "size": blob.size, "pointerSize": 134}
        if self.query.get("expand", "").lower() == "true":
            found["lastCommit"] = {"id": "0" * 40, "title": "", "date": TIME}
        return found

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        files = self.open(kind, name).at(revision).files
        prefix = (folder or "").strip("/")
        prefix += "/" if prefix else ""
        inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
        if not inside and prefix:
            raise refusal(404, f"{prefix} does not exist", "EntryNotFound")
        found, folders = [], set()
        for path, blob in inside.items():
            rest = path.removeprefix(prefix).split("/")
            folders |= {prefix + "/".join(rest[:depth]) for depth in range(1, len(rest))}
            if len(rest) == 1 or self.query.get("recursive", "").lower() == "true":
                found.append(self.entry(path, blob))
        if self.query.get("recursive", "").lower() != "true":
            folders = {path for path in folders if "/" not in path.removeprefix(prefix)}
        found += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        raise Answer(200, found)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        files = self.open(kind, name).at(revision).files
        asked: Any = parse_qs(self.body.decode()) if b"paths=" in self.body else json.loads(self.body)
        self.query |= {"expand": str(asked.get("expand", "false")).strip("[]'")}
        found = [self.entry(path, files[path]) for path in asked["paths"] if path in files]
        for path in asked["paths"]:
            if any(file.startswith(path + "/") for file in files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        raise Answer(200, found)

    def lfs_batch(self, prefix: str | None, name: str) -> None:
        self.open((prefix or "models/")[:-2], name, write=True)
        found = []
        for entry in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": entry["oid"], "size": entry["size"]}
            if self.hub.quota is not None and sum(map(len, self.hub.large.values())) + entry["size"] > self.hub.quota:
                raise refusal(403, "Private repository storage limit reached, please upgrade your plan")
            if entry["oid"] not in self.hub.large:
                header, size = {}, self.hub.part_size
                if size is not None and entry["size"] > size:
                    count = -(-entry["size"] // size)
                    header = {
                        str(part): f"{self.hub.store_url}/lfs/{entry['oid']}/{part}" for part in range(1, count + 1)
                    }
                    header["chunk_size"] = str(size)
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.store_url}/lfs/{entry['oid']}", "header": header},
                    "verify": {"href": f"{self.hub.url}/lfs-verify/{entry['oid']}"},
                }
            found.append(answer)
        raise Answer(200, {"transfer": "basic", "objects": found})

    def lfs_put(self, oid: str, part: str | None) -> None:
        if part is not None:
            self.hub.parts.setdefault(oid, {})[int(part)] = self.body
            raise Answer(200, ETag=f'"{oid}-{part}"')
        self.keep(oid, self.body)

    def lfs_complete(self, oid: str) -> None:
        parts = [self.hub.parts[oid][part["partNumber"]] for part in json.loads(self.body)["parts"]]
        self.keep(oid, b"".join(parts))

    def keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise refusal(400, "the content does not have the hash that was announced")
        self.hub.large[oid] = content
        raise Answer(200)

    def lfs_verify(self, oid: str) -> None:
        raise Answer(200 if oid in self.hub.large else 404)

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository = self.open((prefix or "models/")[:-2], name)
        commit = repository.at(revision)
        blob = commit.files.get(path)
        if blob is None:
            raise Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit.oid)
        if blob.content is not None:
            self.file(blob.content, ETag=f'"{blob.oid}"', X_Repo_Commit=commit.oid)
        raise Answer(
            302,
            Location=f"{self.hub.store_url}/large/{blob.oid}",
            X_Repo_Commit=commit.oid,
            X_Linked_Etag=f'"{blob.oid}"',
            X_Linked_Size=str(blob.size),
        )

    def large_file(self, oid: str) -> None:
        self.file(self.hub.large[oid], ETag=f'"{oid}"')

    def file(self, content: bytes, **headers: str) -> None:
        headers |= {"Accept_Ranges": "bytes", "Content_Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            raise Answer(200, content, **headers)
        self.hub.ranges.append(asked[0])
        start, stop = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if start >= len(content):
            raise Answer(416, **headers, Content_Range=f"bytes */{len(content)}")
        part = content[start : stop + 1]
        raise Answer(206, part, **headers, Content_Range=f"bytes {start}-{stop}/{len(content)}")
