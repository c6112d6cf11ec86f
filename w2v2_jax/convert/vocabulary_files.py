"""Vocabularies as transformers and fairseq keep them: vocab.json with tokenizer_config.json, dict.ltr.txt."""

from pathlib import Path
from typing import Any

from w2v2_jax.convert.card import FormatError
from w2v2_jax.convert.folders import read_json, write_json
from w2v2_jax.data.text import LETTERS, SPECIALS, WORD_END, Vocabulary

VOCABULARY, TOKENIZER, SPECIAL_TOKENS, ADDED_TOKENS = (
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
DEFAULTS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "word_delimiter_token": WORD_END,
}
BLANK_TOKEN = "pad_token"
"""In transformers the padding is CTC's blank."""
PHONES = "Wav2Vec2PhonemeCTCTokenizer"


def read_vocabulary(folder: Path, num_labels: int, language: str) -> Vocabulary:
    """The vocabulary of a folder of transformers, for a head of `num_labels` outputs.

    Of a vocabulary for many languages, that of `language` is taken.

    Raises:
        FormatError: where there is none, or it is of another size.
    """
    ids = read_json(folder / VOCABULARY)
    if not ids:
        raise FormatError(f"{folder} has no {VOCABULARY}, which says what a CTC head's outputs are; put it there")
    if all(isinstance(each, dict) for each in ids.values()):
        if language not in ids:
            known = ", ".join(sorted(ids))
            raise FormatError(f"{folder / VOCABULARY} has no language {language!r}; give one of {known}")
        ids = ids[language]
    # Tokens are added behind the vocabulary: maybe behind the last output too, maybe behind that of another language.
    places = set(range(num_labels)) - set(ids.values())
    ids = {token: number for token, number in read_json(folder / ADDED_TOKENS).items() if number in places} | ids
    tokens = {name: _text(token) for name, token in _tokenizer(folder).items()}
    symbols = sorted(ids, key=ids.get)
    if sorted(ids.values()) != list(range(num_labels)):
        raise FormatError(
            f"{folder / VOCABULARY} has {len(ids)} symbols with ids up to {max(ids.values())}, the head {num_labels} "
            f"outputs: that takes the ids 0 to {num_labels - 1} once each; give the vocabulary that it was trained with"
        )
    if tokens[BLANK_TOKEN] not in ids:
        raise FormatError(f"{folder / VOCABULARY} lacks the padding {tokens[BLANK_TOKEN]!r}, which is the blank of CTC")
    specials = tuple(tokens[name] for name in DEFAULTS if name != "word_delimiter_token" and tokens[name])
    if tokens.get("do_lower_case"):
        symbols = [symbol if symbol in specials else symbol.lower() for symbol in symbols]
    separator = tokens.get("phone_delimiter_token", " ") if tokens.get("tokenizer_class") == PHONES else ""
    return Vocabulary(tuple(symbols), specials, tokens[BLANK_TOKEN], tokens["word_delimiter_token"] or "", separator)


def _tokenizer(folder: Path) -> dict[str, Any]:
    return DEFAULTS | read_json(folder / SPECIAL_TOKENS) | read_json(folder / TOKENIZER)


def default_language(folder: Path) -> str:
    """The language that a folder of transformers says it is set to, "" where it has none."""
    return _tokenizer(folder).get("target_lang") or ""


def _text(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) and "content" in token else token


def write_vocabulary(vocabulary: Vocabulary, language: str, folder: Path) -> None:
    """Writes what `read_vocabulary` reads, with fairseq's blank called padding as transformers wants it."""
    vocabulary = _blank_as_padding(vocabulary)
    ids: dict[str, Any] = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
    write_json(folder / VOCABULARY, {language: ids} if language else ids)
    names = ("bos_token", "eos_token", "unk_token")
    others = [special for special in vocabulary.specials if special != vocabulary.blank]
    known = dict.fromkeys(names) | {
        name: token for name in names for token in others if token in (DEFAULTS[name], f"[{name[:3].upper()}]")
    }
    tokenizer = {
        "tokenizer_class": PHONES if vocabulary.separator else "Wav2Vec2CTCTokenizer",
        "processor_class": "Wav2Vec2Processor",
        **known,
        BLANK_TOKEN: vocabulary.blank,
        "word_delimiter_token": vocabulary.word_end or None,
        "do_lower_case": False,
    }
    phones = {"phone_delimiter_token": vocabulary.separator, "do_phonemize": False} if vocabulary.separator else {}
    write_json(folder / TOKENIZER, tokenizer | phones | ({"target_lang": language} if language else {}))


def _blank_as_padding(vocabulary: Vocabulary) -> Vocabulary:
    if vocabulary.blank != SPECIALS[0] or DEFAULTS[BLANK_TOKEN] not in vocabulary.symbols:
        return vocabulary
    padding = DEFAULTS[BLANK_TOKEN]
    swapped = {vocabulary.blank: padding, padding: vocabulary.blank}
    symbols = tuple(swapped.get(symbol, symbol) for symbol in vocabulary.symbols)
    return Vocabulary(symbols, vocabulary.specials, padding, vocabulary.word_end, vocabulary.separator)


def read_dictionary(path: Path) -> Vocabulary:
    """The vocabulary of fairseq's dict.ltr.txt: a symbol and its count a line; the specials come before them.

    Raises:
        FormatError: for a line that is something else.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if len(line.rsplit(" ", 1)) != 2 or not line.rsplit(" ", 1)[1].isdigit():
            raise FormatError(f"{path}, line {number}: {line!r} is not a symbol and its count")
    return Vocabulary((*SPECIALS, *(line.rsplit(" ", 1)[0] for line in lines)))


def write_dictionary(vocabulary: Vocabulary, path: Path) -> None:
    """Writes what `read_dictionary` reads; counts are not kept and stand as 1.

    Raises:
        FormatError: where the first four symbols are no specials, the first the blank: fairseq knows no other order.
    """
    if vocabulary.blank_id != 0 or not set(vocabulary.symbols[:4]) <= set(vocabulary.specials):
        raise FormatError(
            f"fairseq's first four labels are the blank and three more specials; here they are "
            f"{vocabulary.symbols[:4]} with the blank {vocabulary.blank!r}; convert to huggingface"
        )
    path.write_text("".join(f"{symbol} 1\n" for symbol in vocabulary.symbols[4:]), encoding="utf-8")


def letters_if_they_fit(num_labels: int) -> Vocabulary | None:
    """fairseq's letters of LibriSpeech, the vocabulary of its published networks, for a head of that size."""
    return LETTERS if num_labels == len(LETTERS) else None
