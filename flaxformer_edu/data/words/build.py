"""Builds `words.txt.gz` from the package wordfreq, which this needs: `pip install wordfreq==3.1.1`, then

python -m flaxformer_edu.data.words.build
"""

import gzip

from flaxformer_edu.data.words import ALPHABET, LANGUAGES, WORDS_FILE

WORDS = 13_000  # per language
LENGTHS = range(2, 13)
FREQUENCY_RATIO = 10  # how many times as frequent a word must be in its language as in each of the others


def collect() -> dict[str, list[str]]:
    """The most frequent words of each language that are words of hardly any other, in alphabetical order."""
    from wordfreq import get_frequency_dict  # pyright: ignore[reportMissingImports]

    frequencies = {code: get_frequency_dict(code, "large") for code in LANGUAGES}
    words = {}
    for code, known in frequencies.items():
        others = [other for name, other in frequencies.items() if name != code]
        chosen = [
            word
            for word, frequency in known.items()  # most frequent first
            if len(word) in LENGTHS
            and set(word) <= set(ALPHABET)
            and all(frequency > FREQUENCY_RATIO * other.get(word, 0) for other in others)
        ]
        words[code] = sorted(chosen[:WORDS])
    return words


def main() -> None:
    """Write the file: for each language a line with `#` and its code, then one line per word."""
    lines = [line for code, words in collect().items() for line in (f"# {code}", *words)]
    content = gzip.compress("\n".join([*lines, ""]).encode(), mtime=0)
    WORDS_FILE.write_bytes(content)
    print(f"{WORDS_FILE}: {len(lines) - len(LANGUAGES):,} words, {len(content):,} bytes")


if __name__ == "__main__":
    main()
