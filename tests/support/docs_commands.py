"""What the documentation tells people to type: fenced blocks and inline commands of a Markdown file."""

import re
from dataclasses import dataclass

from tests.support.places import ROOT

_BLOCK = re.compile(r"^```(\w+)[ ]?(\w*)\n(.*?)^```$", flags=re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word after that (who runs it, if not everybody), its text, its first line."""

    language: str
    where: str
    text: str
    line: int


def blocks(document: str, language: str, where: str = "") -> list[Block]:
    """The blocks of one kind, in order; a path under the repository."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [
        Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 2) for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if (block.language, block.where) == (language, where)]


def commands(document: str) -> list[str]:
    """Every line of every plain `bash` block, without comments."""
    lines = [line for block in blocks(document, "bash") for line in block.text.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def inline_commands(document: str, program: str) -> list[str]:
    """Commands of a program inside sentences, without a repetition."""
    text = _BLOCK.sub("", (ROOT / document).read_text(encoding="utf-8"))
    return list(dict.fromkeys(re.findall(rf"`({program} [^`]+)`", text)))


def for_tiny(command: str, moment: str = "") -> str:
    """The same on the tiny experiment, and at a moment at which its store existed."""
    command = re.sub(r"\binduction\b", "tiny", command)
    return re.sub(r"--at \S+", f"--at {moment}", command) if moment else command
