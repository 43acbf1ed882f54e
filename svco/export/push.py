"""An export to the Hugging Face hub: only when asked, only with a token of the environment, private unless told otherwise."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..basics.errors import UserError, first_line
from ..basics.secrets import redacted
from ..model.provenance import IDENTITY, unchanged

TOKEN = "HF_TOKEN"
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Destination:
    """Where an export goes."""

    repo: str
    """organisation/name."""
    token: str
    """Of the environment."""
    public: bool = False
    """Whether anybody may read it, where it is made anew."""


def destination(repo: str, public: bool) -> Destination:
    """``--push REPO``, checked before any work is done; UserError for a name that is none, or without a token."""
    if not _REPO.fullmatch(repo):
        raise UserError(f"--push is {repo!r}; it takes organisation/name on the hub.")
    if not (token := os.environ.get(TOKEN, "").strip()):
        raise UserError(
            f"--push needs a token that may write, in the environment: export {TOKEN}=… "
            "(https://huggingface.co/settings/tokens). Tokens stored on this machine are not used."
        )
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError("--push needs the hub, and HF_HUB_OFFLINE forbids it: unset it for this command.")
    return Destination(repo, token, public)


def is_export(folder: Path) -> bool:
    """Whether ``folder`` is what ``svco export`` wrote: weights with their card."""
    return (folder / IDENTITY).is_file() and (folder / "README.md").is_file()


def push(folder: Path, to: Destination) -> str:
    """Uploads the export in ``folder``, which must be as it was written, in one commit; its address. Weights that are there
    already are not sent again. UserError if the hub does not take it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    unchanged(folder)
    api = HfApi(token=to.token)
    try:
        api.create_repo(to.repo, private=not to.public, exist_ok=True)
        done = api.upload_folder(
            repo_id=to.repo, folder_path=str(folder), commit_message="Export of svco", ignore_patterns=[".*"]
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{api.endpoint}/{to.repo} did not take the export: {_why(error, to)} It stays in {folder}; "
            f"svco export {folder} --push {to.repo} tries again."
        ) from None
    return str(done.commit_url if hasattr(done, "commit_url") else done)


def _why(error: Exception, to: Destination) -> str:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    known = {401: f"it does not know the token in {TOKEN}.", 403: f"the token in {TOKEN} may not write there."}
    return known.get(status) or redacted(first_line(error)).replace(to.token, "…").rstrip(".") + "."
