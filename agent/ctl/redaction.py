"""Strike out secrets in text that leaves the host."""

from __future__ import annotations

import json
import re

from agent.log import redact

__all__ = ["redact_text"]

_NAMES = (
    r"(?:passw(?:or)?d|passphrase|secret|token|authorization|credential|private[_-]?key"
    r"|api[_-]?key|auth)s?(?:[_-]\w+)?"
)
_QUOTED = r'''"""[\s\S]*?"""|\'{3}[\s\S]*?\'{3}|\\+".*?\\+"|"(?:\\.|[^"\\])*"|\'[^\']*\''''
_VALUE = re.compile(rf"""(?i)({_NAMES}\\*["']?\s*[=:]\s*)({_QUOTED}|[^\s,;}}\]]+)""")
_LOGIN = re.compile(r"(?i)(--?user[ =][^\s:]+:)\S+")
_FLAG = re.compile(rf"""(?i)(--?[a-z-]*{_NAMES}[a-z-]*[ ])(\S+)""")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}")
_USER = re.compile(r"""(?<=://)[^\s"'<>]+@""")  # a password may hold any character
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_STRUCK_OUT = "***"


def redact_text(text: str) -> str:
    """Return ``text`` with secret values, private keys and users in URLs struck out.

    JSON is parsed, since its keys are certain. Other text is searched.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict | list):
        text = json.dumps(redact(document), indent=2, ensure_ascii=True)
    text = _PEM.sub(f"{_STRUCK_OUT} private key", text)
    text = _BEARER.sub(rf"\1 {_STRUCK_OUT}", text)
    text = _VALUE.sub(_value, text)
    text = _LOGIN.sub(rf"\1{_STRUCK_OUT}", text)
    text = _FLAG.sub(rf"\1{_STRUCK_OUT}", text)
    return _USER.sub(f"{_STRUCK_OUT}@", text)


def _value(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    if re.search(r"(?i)[_-](file|ttl\w*)[\"']?\s*[=:]", name):
        return match[0]
    quote = value[0] if value[:1] in "\"'" else ""
    return f"{name}{quote}{_STRUCK_OUT}{quote}"
