"""A steered checkpoint on the Hub: most of it is checked by what the Hub publishes of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import SafetensorsParsingError
from huggingface_hub.hf_api import RepoFile

from mars_export.common.errors import ExportError
from mars_export.families.directory import digest
from mars_export.hub.hub_errors import hub_errors

__all__ = ["Repository"]

_SMALL: Final = 1 << 26
"""Bytes; nothing larger is downloaded."""


class Repository:
    """A model repository at one commit.

    The Hub checks the SHA-256 of a large file when it is uploaded and publishes it, so large files
    are not downloaded; small ones are, into the user's cache.
    """

    def __init__(self, repo: str, revision: str | None = None) -> None:
        """Look up the repository.

        Raises:
            ExportError: if it does not exist, may not be read, or the Hub cannot be reached.
        """
        self._api, self._repo = HfApi(library_name="mars-export"), repo
        with hub_errors(repo, self._api.endpoint):
            self.commit = str(self._api.model_info(repo, revision=revision).sha)
            tree = list(self._api.list_repo_tree(repo, recursive=True, revision=self.commit))
        self.files = {file.path: file for file in tree if isinstance(file, RepoFile)}
        self.sizes = {path: file.size for path, file in self.files.items()}
        self.irregular: dict[str, str] = {}  # a repository holds no links

    def sha256(self, path: str, progress: Callable[[int], None]) -> str:
        """Digest of a file: the published one, or that of the bytes if it is small."""
        published = self.files[path].lfs
        if published is None:
            return digest(self.fetch(path), progress)
        progress(self.sizes[path])
        return published.sha256

    def fetch(self, path: str) -> Path:
        """A small file, downloaded.

        Raises:
            ExportError: if it is missing or large, or the download fails.
        """
        if path not in self.sizes:
            raise ExportError(f"{path} is missing")
        if self.sizes[path] > _SMALL:
            raise ExportError(f"{path} is too large for what it should be")
        with hub_errors(self._repo, self._api.endpoint):
            return Path(self._api.hf_hub_download(self._repo, path, revision=self.commit))

    def tensors(self, path: str) -> Mapping[str, int]:
        """Tensor name to bytes of its data; the header alone is downloaded.

        Raises:
            ExportError: if the file is missing or no safetensors file.
        """
        try:
            with hub_errors(self._repo, self._api.endpoint):
                header = self._api.parse_safetensors_file_metadata(
                    self._repo, path, revision=self.commit
                )
        except SafetensorsParsingError as error:
            raise ExportError(f"{path} is no safetensors file") from error
        spans = {name: info.data_offsets for name, info in sorted(header.tensors.items())}
        return {name: end - start for name, (start, end) in spans.items()}
