"""What is sent: the cases of the corpus, the classic gadgets, and generated mutations."""

import re
import tomllib
from dataclasses import dataclass, replace

REPEAT = re.compile(r"\$\{(.*?)\*(\d+)\}", re.DOTALL)
ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
# What matters of TOML when inline tables are to be put on one line; a string or a comment is one word.
WORD = re.compile(
    r"'''.*?'{3,5}|\"\"\".*?\"{3,5}|'[^'\n]*'|\"(?:\\.|[^\"\\\n])*\"|#[^\n]*|,?\s*\}|[{\n]|.", re.DOTALL
)
SIMPLE = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


@dataclass(frozen=True)
class Input:
    """Bytes for one client connection. `group` says what kind of doubt they are about."""

    name: str
    group: str
    raw: bytes
    trusted: bool = False
    # Where they are cut into pieces that are sent one after the other.
    cuts: tuple = ()

    def pieces(self):
        """The bytes as they are sent."""
        ends = (*self.cuts, len(self.raw))
        return [self.raw[start:end] for start, end in zip((0, *self.cuts), ends)]


def cut_some(rng, found):
    """The same inputs, every third of them cut at one to three places, which are the same for the same seed."""
    for one in found:
        if len(one.raw) > 3 and rng.random() < 1 / 3:
            cuts = tuple(sorted(rng.sample(range(1, len(one.raw)), rng.randint(1, 3))))
            one = replace(one, cuts=cuts)
        yield one


def corpus(directory):
    """The `send` of every case in `directory`/*.toml."""
    found = []
    for path in sorted(directory.glob("*.toml")):
        for case in tomllib.loads(on_one_line(path.read_text()))["case"]:
            found.append(
                Input(
                    name=f"corpus/{path.stem}/{case['name']}",
                    group=f"corpus {path.stem}",
                    raw=resolve(case["send"]),
                    trusted=case.get("listener") == "trusted",
                )
            )
    return found


def on_one_line(text):
    """The same file with every inline table on one line: the reader of Python 3.11 knows TOML 1.0 only."""
    out, depth = [], 0
    for word in WORD.findall(text):
        if word == "{":
            depth += 1
        elif word.endswith("}") and word.lstrip(", \n\t") == "}":
            depth -= 1
            word = "}"
        elif depth and (word == "\n" or word[0] == "#"):
            word = " "
        out.append(word)
    return "".join(out)


def resolve(text):
    """The bytes that a text of the corpus stands for."""
    text = REPEAT.sub(lambda m: m[1] * int(m[2]), text.replace("\n", ""))
    out, at = bytearray(), 0
    for escape in ESCAPE.finditer(text):
        out += text[at : escape.start()].encode()
        out += unescape(escape[1])
        at = escape.end()
    return bytes(out + text[at:].encode())


def unescape(word):
    """The byte of one escape, without its backslash."""
    if word[0] == "x":
        return bytes([int(word[1:], 16)])
    if word not in SIMPLE:
        raise ValueError(f"unknown escape \\{word}")
    return SIMPLE[word]
