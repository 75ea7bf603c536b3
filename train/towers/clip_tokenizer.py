"""The tokenizer of CLIP as a `tokenizers` file, from the vocabulary that open_clip ships.

open_clip first cleans a sentence with ftfy and html.unescape. What of that is the same for every sentence is in the file: curly quotes,
ligatures, full-width letters, control characters, named entities, the final sigma. What depends on the whole sentence is not: text
decoded with the wrong encoding ("KÃ¤uzchen") is left as it is, and so are entities by number (but for quotes and brackets), without
their semicolon, or in words that HTML 4 has not.
"""

from __future__ import annotations

import gzip
import unicodedata
from html.entities import name2codepoint
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

START, END = "<start_of_text>", "<end_of_text>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

CONTROL = r"[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]"
LIGATURES = "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆ"
NUMBERED = {
    "&#39;": "'",
    "&#x27;": "'",
    "&#34;": '"',
    "&#38;": "&",
    "&#60;": "<",
    "&#62;": ">",
    "&#160;": " ",
}
N_UNESCAPED = 3  # times that open_clip unescapes a sentence: &amp;amp;amp; is one &


def cleaning() -> list[normalizers.Normalizer]:
    """The part of ftfy and html.unescape that needs no look at the whole sentence."""
    names = {f"&{name};": chr(code) for name, code in name2codepoint.items() if name != "amp"}
    wide = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
    parts = {char: unicodedata.normalize("NFKC", char) for char in LIGATURES}
    changed = {
        old: new for old, new in (names | NUMBERED | wide | parts | {"\u3000": " "}).items() if old != new
    }
    return [
        *(normalizers.Replace("&amp;", "&") for _ in range(N_UNESCAPED)),
        *(normalizers.Replace(old, new) for old, new in changed.items()),
        normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
        normalizers.Replace(Regex("[\u201c-\u201f]"), '"'),
        normalizers.Replace(Regex(CONTROL), ""),
        normalizers.NFC(),
    ]


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for bytes in GPT-2's byte-level vocabularies, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(byte) for byte in printable]
    n_other = 256 - len(printable)
    return symbols + [chr(256 + i) for i in range(n_other)]


def clip_tokenizer_json(vocabulary_file: Path, max_tokens: int) -> bytes:
    """Build the tokenizer: lower case, word pieces that end in </w>, start and end marks, nothing padded.

    Args:
        vocabulary_file: gzip of merges, one a line, after a first line with a version (bpe_simple_vocab_16e6.txt.gz).
    """
    lines = gzip.decompress(vocabulary_file.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    symbols = byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), START, END]
    vocabulary = {word: i for i, word in enumerate(words)}
    pairs = [(first, second) for first, second in merges]
    tokenizer = Tokenizer(BPE(vocabulary, pairs, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *cleaning(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς"),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(START, special=True), AddedToken(END, special=True)])
    marks = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
    tokenizer.enable_truncation(max_tokens)
    return tokenizer.to_str().encode("utf-8")
