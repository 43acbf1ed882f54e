"""What must not be shown or written: the credentials in an address, and tokens of services one knows.

A secret that looks like any other part of a path or a name cannot be told from one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

REMOVED = "***"
"""Stands where a secret was."""
_ADDRESS = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)(\S+)")
_USER = re.compile(r"[^/?#]*@|(?!\[)[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$)).*@")
"""What stands before a host: a password may hold a slash or a question mark that should have been quoted."""
_CLOSING = re.compile(r"""["'`)\]}>,.;:…]*$""")
"""What ends a quotation or a sentence, not an address."""
_NAMES = (
    r"X-(?:Amz|Goog|Ms)-[\w-]+|(?:AWS|Google)_?Access_?(?:Key_?)?Id|AccessKeyId|(?:aws_)?secret_access_key|(?:aws_)?session_token|"
    r"(?:shared_access_)?signature|(?:access|auth|refresh|bearer|hf|api)?[_-]?token|(?:api|account|secret)[_-]?key|"
    r"(?:client[_-]?)?secret|passw(?:or)?d|authori[sz]ation"
)
_NAME = re.compile(rf"(?i)(?:.*[_.-])?(?:{_NAMES})")
_NAMED = re.compile(rf"(?i)(?<![\w.-])({_NAMES})(=|%3D|:\s*(?:Bearer|Basic)\s+)[^\s&\"',;\])}}]{{6,}}")
_PARAMETER = re.compile(rf"(?i)([?&](?:{_NAMES}|key|sig|se|sv|credential|policy|expires)=)[^\s&\"']+")
"""Of a query whose address is not whole."""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(hf_|gh[oprsu]_|github_pat_|AKIA|ASIA|glpat-|Bearer\s+)[A-Za-z0-9_.~+/=-]{12,}", re.ASCII
)


def redacted(text: str) -> str:
    """``text`` as it may be shown: every address in it without user, password, query and fragment, which may hold a signature,
    and without tokens; ``***`` where they were. What holds no secret comes back as it is."""
    if "://" in text:
        text = _ADDRESS.sub(lambda found: found[1] + _without_secrets(found[2]), text)
    text = _NAMED.sub(rf"\1\2{REMOVED}", text)
    text = _PARAMETER.sub(rf"\1{REMOVED}", text)
    return _TOKEN.sub(rf"\1{REMOVED}", text)


def redacted_tree(tree: Any) -> Any:
    """``tree`` of JSON or YAML with every text :func:`redacted`, and the values of names such as ``api_key``."""
    if isinstance(tree, str):
        return redacted(tree)
    if isinstance(tree, Mapping):
        return {
            key: REMOVED if value and isinstance(value, str) and _NAME.fullmatch(str(key)) else redacted_tree(value)
            for key, value in tree.items()
        }
    if isinstance(tree, (list, tuple)):
        return type(tree)(redacted_tree(item) for item in tree)
    return tree


def lacks_credentials(address: str) -> bool:
    """Whether ``address`` comes from a file that its credentials were not written to."""
    return "://" in address and REMOVED in address


def _without_secrets(rest: str) -> str:
    """What follows an address's protocol, up to a blank."""
    closing = _CLOSING.search(rest)
    end = closing[0] if closing else ""
    rest = rest.removesuffix(end)
    if user := _USER.match(rest):
        rest = f"{REMOVED}@{rest[user.end() :]}"
    place = re.split("[?#]", rest)[0]
    return place + (f"?{REMOVED}" if place != rest else "") + end


class Redacting:
    """A text stream that shows what is written to it :func:`redacted`; else the stream ``shown`` itself."""

    def __init__(self, shown: TextIO):
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)
