"""Repositories of the local Hub: commits, small files and large objects."""

import hashlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Blob:
    """One file of a commit. A large one is known by its SHA-256, a small one by its git id."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """The files of a repository at one moment."""

    sha: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A model repository with one branch, `main`."""

    id: str
    private: bool = False
    gated: str | bool = False
    xet: bool = True
    """Whether its large objects can be duplicated elsewhere."""
    commits: list[Commit] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large objects of this repository by SHA-256."""

    def __post_init__(self) -> None:
        self.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial")

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, files: dict[str, Blob], title: str) -> Commit:
        parent = self.commits[-1].sha if self.commits else ""
        tree = sorted((path, blob.oid) for path, blob in files.items())
        sha = hashlib.sha1(repr((parent, title, tree)).encode()).hexdigest()
        self.commits.append(Commit(sha, title, files))
        return self.head

    def publish(self, files: dict[str, bytes], large: tuple[str, ...]) -> Commit:
        """Commit the given files beside those already there."""
        blobs = {path: Blob(content, path.endswith(large)) for path, content in files.items()}
        self.objects.update({b.oid: b.content for b in blobs.values() if b.large})
        return self.commit(self.head.files | blobs, "files")

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.head
        return next((c for c in self.commits if c.sha == revision), None)

    def xet_hash(self, blob: Blob) -> str:
        return hashlib.sha256(b"xet" + blob.content).hexdigest()

    def entry(self, path: str, blob: Blob) -> dict[str, Any]:
        """A file as `tree` and `paths-info` describe it."""
        size = len(blob.content)
        entry = {"type": "file", "oid": blob.oid[:40], "size": size, "path": path}
        if blob.large:
            entry["lfs"] = {"oid": blob.oid, "size": size, "pointerSize": 130}
        if blob.large and self.xet:
            entry["xetHash"] = self.xet_hash(blob)
        return entry
