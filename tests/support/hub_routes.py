"""Routes of the local Hub: who may ask, and what is answered."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from support.hub_store import Blob, Commit, Repo

if TYPE_CHECKING:
    from support.hub import Hub

Reply = tuple[int, Any, dict[str, str]]


class HubError(Exception):
    """An error answer, with the code that tells the client which exception to raise."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def reply(self) -> Reply:
        headers = {"X-Error-Message": self.message}
        if self.code:
            headers["X-Error-Code"] = self.code
        return self.status, {"error": self.message}, headers


@dataclass
class Call:
    """A request on its way to a route."""

    hub: "Hub"
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    route: str = "unknown"

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def signed_in(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {self.hub.token}"

    def require_token(self) -> None:
        if not self.signed_in:
            raise HubError(401, "Invalid username or password.")

    def visible(self, repo_id: str) -> Repo:
        """A repository whose existence the caller may know."""
        repo = self.hub.repos.get(repo_id)
        mine = self.signed_in and repo_id.startswith(f"{self.hub.user}/")
        if repo is None or (repo.private and not mine and repo_id not in self.hub.granted):
            raise HubError(404 if self.signed_in else 401, "Repository not found", "RepoNotFound")
        return repo

    def readable(self, repo_id: str) -> Repo:
        """A repository whose files the caller may read."""
        repo = self.visible(repo_id)
        mine = self.signed_in and repo_id.startswith(f"{self.hub.user}/")
        allowed = mine or (self.signed_in and repo_id in self.hub.granted)
        if repo.gated and not allowed:
            raise HubError(403 if self.signed_in else 401, "Access is restricted.", "GatedRepo")
        return repo

    def writable(self, repo_id: str) -> Repo:
        self.require_token()
        repo = self.visible(repo_id)
        if not repo_id.startswith(f"{self.hub.user}/"):
            raise HubError(403, "You don't have the rights to write to this repository.")
        return repo


def dispatch(call: Call) -> Reply:
    path = call.path.replace("/api/spaces/", "/api/models/", 1)  # Spaces are repositories as well
    for method, route, pattern in ROUTES:
        if match := re.fullmatch(pattern, path):
            if call.method not in method:
                continue
            call.route = route
            if route in call.hub.broken:
                raise HubError(*call.hub.broken[route])
            return call.hub.meddle(call, partial(globals()[f"_{route}"], call, *match.groups()))
    raise HubError(404, f"the local Hub has no {call.method} {call.path}")


ID: Final = r"([^/]+/[^/]+)"
ROUTES: Final[tuple[tuple[tuple[str, ...], str, str], ...]] = (
    (("GET",), "whoami", r"/api/whoami-v2"),
    (("POST",), "create", r"/api/repos/create"),
    (("POST",), "validate_yaml", r"/api/validate-yaml"),
    (("PUT",), "settings", rf"/api/models/{ID}/settings"),
    (("POST",), "preupload", rf"/api/models/{ID}/preupload/([^/]+)"),
    (("POST",), "commit", rf"/api/models/{ID}/commit/([^/]+)"),
    (("POST",), "duplicate", rf"/api/models/{ID}/lfs-files/duplicate"),
    (("POST",), "paths_info", rf"/api/models/{ID}/paths-info/([^/]+)"),
    (("GET",), "tree", rf"/api/models/{ID}/tree/([^/]+)"),
    (("GET",), "refs", rf"/api/models/{ID}/refs"),
    (("GET",), "info", rf"/api/models/{ID}(?:/revision/([^/]+))?"),
    (("POST",), "lfs_batch", rf"/{ID}\.git/info/lfs/objects/batch"),
    (("PUT",), "lfs_upload", rf"/lfs-storage/{ID}/(\w+)"),
    (("HEAD", "GET"), "resolve", rf"/{ID}/resolve/([^/]+)/(.+)"),
)


def _commit_at(repo: Repo, revision: str) -> Commit:
    commit = repo.at(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _whoami(call: Call) -> Reply:
    call.require_token()
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    return 200, {"type": "user", "name": call.hub.user, "orgs": [], "auth": auth}, {}


def _create(call: Call) -> Reply:
    call.require_token()
    wanted = call.json
    owner = wanted.get("organization") or call.hub.user
    repo_id = f"{owner}/{wanted['name']}"
    url = f"{call.hub.url}/{repo_id}"
    if owner != call.hub.user:
        raise HubError(403, f"You don't have the rights to create a model under {owner}.")
    if repo_id in call.hub.repos:
        return 409, {"error": "You already created this model repo", "url": url}, {}
    call.hub.repos[repo_id] = Repo(repo_id, private=wanted.get("visibility") == "private")
    return 200, {"url": url, "name": repo_id, "id": "0"}, {}


def _validate_yaml(call: Call) -> Reply:
    if call.json["content"].startswith("---\n"):
        return 200, {"errors": [], "warnings": []}, {}
    return 400, {"errors": [{"message": "empty metadata"}], "warnings": []}, {}


def _settings(call: Call, repo_id: str) -> Reply:
    repo, wanted = call.writable(repo_id), call.json
    if "gated" in wanted:
        repo.gated = wanted["gated"]
    if "visibility" in wanted:
        repo.private = wanted["visibility"] == "private"
    return 200, {}, {}


def _preupload(call: Call, repo_id: str, revision: str) -> Reply:
    from support.hub import LARGE

    here = _commit_at(call.writable(repo_id), revision).files
    files = [
        {
            "path": f["path"],
            "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
            "shouldIgnore": False,
            "oid": here[f["path"]].oid if f["path"] in here else None,
        }
        for f in call.json["files"]
    ]
    return 200, {"files": files}, {}


def _lfs_batch(call: Call, repo_id: str) -> Reply:
    repo, objects = call.writable(repo_id), []
    for wanted in call.json["objects"]:
        target = {"href": f"{call.hub.url}/lfs-storage/{repo_id}/{wanted['oid']}", "header": {}}
        known = wanted["oid"] in repo.objects
        objects.append(wanted | ({} if known else {"actions": {"upload": target}}))
    return 200, {"transfer": "basic", "objects": objects}, {}


def _lfs_upload(call: Call, repo_id: str, oid: str) -> Reply:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise HubError(400, "digest mismatch")
    call.hub.repos[repo_id].objects[oid] = call.body
    return 200, {}, {}


def _duplicate(call: Call, source_id: str) -> Reply:
    source, wanted = call.readable(source_id), call.json
    target = call.writable(wanted["target"]["name"])
    failed = []
    for file in wanted["files"]:
        content = source.objects.get(file["sha256"])
        if content is None or file["xetHash"] != source.xet_hash(Blob(content, True)):
            failed.append({"sha256": file["sha256"], "error": "no such object"})
        else:
            target.objects[file["sha256"]] = content
    return 200, {"success": not failed, "failed": failed}, {}


def _commit(call: Call, repo_id: str, revision: str) -> Reply:
    repo = call.writable(repo_id)
    files, title = dict(_commit_at(repo, revision).files), ""
    for line in filter(bytes.strip, call.body.splitlines()):
        record = json.loads(line)
        key, value = record["key"], record["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit", repo.head.sha) != repo.head.sha:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        elif key == "deletedFile":
            del files[value["path"]]
        elif key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif key == "lfsFile" and value["oid"] in repo.objects:
            files[value["path"]] = Blob(repo.objects[value["oid"]], True)
        else:
            raise HubError(400, f"cannot apply {key} {value.get('path')}")
    sha = repo.commit(files, title).sha
    url = f"{call.hub.url}/{repo_id}/commit/{sha}"
    return 200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""}, {}


def _paths_info(call: Call, repo_id: str, revision: str) -> Reply:
    repo = call.readable(repo_id)
    form = not call.headers.get("content-type", "").startswith("application/json")
    wanted = parse_qs(call.body.decode()).get("paths", []) if form else call.json["paths"]
    files = _commit_at(repo, revision).files
    return 200, [repo.entry(path, files[path]) for path in wanted if path in files], {}


def _tree(call: Call, repo_id: str, revision: str) -> Reply:
    repo = call.readable(repo_id)
    recursive = call.query.get("recursive", ["false"])[0].lower() == "true"
    files = sorted(_commit_at(repo, revision).files.items())
    return 200, [repo.entry(p, b) for p, b in files if recursive or "/" not in p], {}


def _refs(call: Call, repo_id: str) -> Reply:
    head = call.visible(repo_id).head.sha
    branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": head}
    return 200, {"branches": [branch], "tags": [], "converts": []}, {}


def _info(call: Call, repo_id: str, revision: str | None) -> Reply:
    repo = call.visible(repo_id)
    commit = _commit_at(repo, revision or "main")
    return (
        200,
        {
            "_id": "0",
            "id": repo_id,
            "modelId": repo_id,
            "sha": commit.sha,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        },
        {},
    )


def _resolve(call: Call, repo_id: str, revision: str, path: str) -> Reply:
    repo = call.readable(repo_id)
    commit = _commit_at(repo, revision)
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    content = blob.content
    headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    if blob.large:
        headers |= {"X-Linked-ETag": f'"{blob.oid}"', "X-Linked-Size": str(len(content))}
    wanted = re.match(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if wanted is None:
        return 200, content, headers
    start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
    span = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return 206, content[start : end + 1], headers | span
