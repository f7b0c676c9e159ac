"""Uploads to and downloads from the Hugging Face hub, with the token that `hf auth login` has stored."""

from __future__ import annotations

from pathlib import Path

from posbench.errors import ConfigError, DataError


def check_repository(name: str) -> None:
    """Raises ConfigError for a name that no repository can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ConfigError(
            f"{name!r} is not a repository: give USER/NAME of letters, digits, '-', '_' and '.', with at most 96 "
            "characters"
        ) from None


def push_folder(folder: Path, repository: str, kind: str) -> str:
    """Uploads the files of a folder, creates the repository if it is missing, and returns its address.

    Args:
        kind: model or dataset.

    Raises:
        DataError: if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    check_repository(repository)
    logging.set_verbosity_error()  # the library tries again with warnings; what remains is raised
    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type=kind, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, repo_type=kind, commit_message="posbench export"
        )
    except Exception as error:  # of the hub's library and of its HTTP client, without a common base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{repository} cannot be pushed ({reason}): log in with `hf auth login`, check that you may write there, and "
            f"upload it with `hf upload {repository} {folder} --repo-type {kind}`"
        ) from None
    return str(url)


def download(repository: str, name: str, kind: str) -> Path:
    """Returns the local copy of a file of a repository; raises DataError if it cannot be downloaded."""
    from huggingface_hub import hf_hub_download

    check_repository(repository)
    try:
        return Path(hf_hub_download(repository, name, repo_type=kind))
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{name} of {repository} cannot be downloaded ({reason}): check the name, or give a file"
        ) from None
