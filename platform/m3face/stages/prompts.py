"""Which prompts can be read. No torch: a blank prompt is answered at once."""

from __future__ import annotations

from m3face.errors import BadInput

LONGEST_PROMPT = 600


def check_prompt(prompt: str, *, limit: int = LONGEST_PROMPT) -> str:
    """`prompt` without white space around it; BadInput if nothing is left or it is longer than `limit` characters."""
    stripped = prompt.strip()
    if not stripped:
        raise BadInput("prompt", "is blank", f"1 to {limit} characters", "say what the face looks like")
    try:
        stripped.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("prompt", "is not valid text", "UTF-8", "type it again") from None
    if len(stripped) > limit:
        raise BadInput("prompt", f"has {len(stripped)} characters", f"1 to {limit} characters", "shorten it")
    return stripped
