"""What lexical.py measures: memories of words by Zipf's law, questions to them, and the exact BM25 answer to each.

The same words each time, from fixed seeds. A memory is some English stop words, which no index holds, and 10 to 200
words of a vocabulary in which the n-th word is n times as rare as the first: so the commonest stand in most memories,
and half the vocabulary in a handful.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rows import word

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

LIMIT = 10
# Of the store: sql/functions/_lexical_parse.sql.
K1, B = 1.2, 0.3
KINDS = ("fact", "summary", "checkpoint")
SHARES = (0.89, 0.1, 0.01)
STOP_WORDS = "this is about the"


@dataclass(frozen=True)
class Corpus:
    """The memories of one namespace, as numbers of words."""

    name: str
    tokens: Integers
    """The words of all memories, one memory after another."""
    starts: Integers
    """Where each memory begins, and the end of the last one."""
    kinds: Integers
    """Of each memory, the place of its kind in KINDS."""
    ids: npt.NDArray[np.uint8]
    """(memories, 16): random, or rising as they were committed; the last four bytes are the memory's number."""

    def __len__(self) -> int:
        return len(self.kinds)

    def words_of(self, memory: int) -> Integers:
        """Return the words of a memory."""
        return self.tokens[self.starts[memory] : self.starts[memory + 1]]

    def contents(self, vocabulary: npt.NDArray[np.object_]) -> Iterator[str]:
        """Yield the text of each memory."""
        for first in range(0, len(self), 10_000):
            bounds = self.starts[first : first + 10_001]
            words = vocabulary[self.tokens[bounds[0] : bounds[-1]]]
            for start, end in zip(bounds - bounds[0], (bounds - bounds[0])[1:], strict=False):
                yield f"{STOP_WORDS} {' '.join(words[start:end])}"


def make(name: str, count: int, vocabulary: int, *, in_order: bool = False) -> Corpus:
    """Make the memories of a namespace.

    in_order: their ids rise with time, and what they speak of changes: the later half's commonest words are others.
    """
    rng = np.random.default_rng([20262, count, in_order])
    lengths = rng.integers(10, 201, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    law = np.cumsum(1 / np.arange(1, vocabulary + 1))
    tokens = np.empty(starts[-1], np.int32)
    for first in range(0, len(tokens), 10_000_000):
        piece = tokens[first : first + 10_000_000]
        piece[:] = np.searchsorted(law, rng.random(len(piece)) * law[-1])
    ids = rng.integers(0, 256, (count, 16), np.uint8)
    if in_order:
        tokens[starts[count // 2] :] = (tokens[starts[count // 2] :] + 50) % vocabulary
        milliseconds = 1_767_225_600_000 + 60_000 * np.arange(count)
        ids[:, :6] = milliseconds.astype(">u8").view(np.uint8).reshape(count, 8)[:, 2:]
    ids[:, 6] = ids[:, 6] & 0x0F | 0x70
    ids[:, 12:] = np.arange(count).astype(">u4").view(np.uint8).reshape(count, 4)
    return Corpus(name, tokens, starts, rng.choice(len(KINDS), count, p=SHARES), ids)


def vocabulary(size: int) -> npt.NDArray[np.object_]:
    """Return the words, the commonest first."""
    return np.array([word(number) for number in range(size)], dtype=object)


@dataclass(frozen=True)
class Question:
    """One thing to look for in one namespace, as numbers of words."""

    words: tuple[int, ...] = ()
    phrases: tuple[tuple[int, int], ...] = ()
    """Pairs of words that stand together. Each is sought like a word, beside its words; alone, it must be there."""
    without: int | None = None
    """A word that must not occur."""
    kind: int | None = None
    text: str = ""
    """What is asked where it is not made of the above."""

    def asked(self, vocabulary: npt.NDArray[np.object_]) -> str:
        """Return the question as a user writes it."""
        parts = [*vocabulary[list(self.words)], *(f'"{" ".join(vocabulary[list(pair)])}"' for pair in self.phrases)]
        if self.without is not None:
            parts.append(f"-{vocabulary[self.without]}")
        return self.text or " ".join(parts)

    @property
    def plain(self) -> bool:
        """Tell whether it is words only."""
        return not (self.phrases or self.text or self.kind is not None or self.without is not None)


def questions(corpus: Corpus, of_class: str, count: int, usable: npt.NDArray[np.bool_]) -> list[Question]:
    """Make the questions of a class (the keys of CLASSES), of words that are usable."""
    rng = np.random.default_rng([7, len(corpus), list(CLASSES).index(of_class)])
    return [CLASSES[of_class](_Draw(corpus, rng, usable)) for _ in range(count)]


@dataclass(frozen=True)
class _Draw:
    """A hand that draws words for one question."""

    corpus: Corpus
    rng: np.random.Generator
    usable: npt.NDArray[np.bool_]

    def of_memory(self, count: int, least: int = 0) -> tuple[int, ...]:
        """Return different words of one memory, the n-th of the vocabulary only from n = least on."""
        while True:
            words = np.unique(self.corpus.words_of(int(self.rng.integers(len(self.corpus)))))
            words = words[(words >= least) & self.usable[words]]
            if len(words) >= count:
                return tuple(map(int, self.rng.choice(words, count, replace=False)))

    def of_many(self, count: int) -> tuple[int, ...]:
        """Return so many different words of as many memories as it takes, in the order in which they came."""
        found: dict[int, None] = {}
        while len(found) < count:
            found |= dict.fromkeys(self.of_memory(10))
        return tuple(found)[:count]

    def common(self, count: int, of: int = 10) -> tuple[int, ...]:
        """Return some of the commonest words."""
        return tuple(map(int, self.rng.choice(np.flatnonzero(self.usable)[:of], count, replace=False)))

    def pair(self) -> tuple[int, int]:
        """Return two words that stand together in some memory."""
        while True:
            words = self.corpus.words_of(int(self.rng.integers(len(self.corpus))))
            place = int(self.rng.integers(len(words) - 1))
            first, second = int(words[place]), int(words[place + 1])
            if first != second and self.usable[first] and self.usable[second]:
                return first, second


def _rare(draw: _Draw) -> int:
    """Return a word of some memory out of the rarer half of the vocabulary that occurs at all."""
    return draw.of_memory(1, len(draw.usable) // 20)[0]


# The first is the one that targets are about; the other words, from here on, are those that make search slow.
FIVE_WORDS = "five words of a memory"
CLASSES = {
    FIVE_WORDS: lambda draw: Question(draw.of_memory(5)),
    "five words, none of the commonest 100": lambda draw: Question(draw.of_memory(5, 100)),
    "five of the ten commonest words": lambda draw: Question(draw.common(5)),
    "one rare word and one of the commonest": lambda draw: Question((_rare(draw), *draw.common(1))),
    "the commonest word": lambda draw: Question(draw.common(1, 1)),
    "60 words": lambda draw: Question(draw.of_many(60)),
    "700 words": lambda draw: Question(draw.of_many(700)),
    "stop words only": lambda draw: Question(text=str(draw.rng.choice(["this is the", "about the", "the"]))),
    "a phrase": lambda draw: Question(phrases=(draw.pair(),)),
    "a phrase and three words": lambda draw: Question(draw.of_memory(3), phrases=(draw.pair(),)),
    "five words and minus a common one": lambda draw: _less(draw),
    "five words, a kind that 1 % have": lambda draw: Question(draw.of_memory(5), kind=2),
}


def _less(draw: _Draw) -> Question:
    """Return words without one that is common and not among them."""
    words = draw.of_memory(5)
    return Question(words, without=next(word for word in draw.common(10) if word not in words))


class Exact:
    """BM25 over every memory of a namespace: the scores that a search should have."""

    def __init__(self, corpus: Corpus, lexemes: Integers) -> None:
        """Take the memories and, of each word of the vocabulary, the number of its lexeme, -1 for none."""
        self.corpus = corpus
        self.lexemes = lexemes
        self.found = lexemes[corpus.tokens]
        # Sorted by lexeme, the places of each follow one another, those of one memory together.
        self.places = np.argsort(self.found, kind="stable").astype(np.uint32)
        self.bounds = np.concatenate([[0], np.cumsum(np.bincount(self.found + 1, minlength=int(lexemes.max()) + 2))])
        self.memory = np.repeat(np.arange(len(corpus), dtype=np.int32), np.diff(corpus.starts))
        lengths = np.add.reduceat((self.found >= 0).astype(np.int64), corpus.starts[:-1])
        self.norm = K1 * (1 - B + B * lengths / lengths.mean())

    def _at(self, word: int) -> Integers:
        """Return the places of a word."""
        lexeme = int(self.lexemes[word]) + 1
        return self.places[self.bounds[lexeme] : self.bounds[lexeme + 1]]

    def _together(self, pair: tuple[int, int]) -> Integers:
        """Return the memories with a phrase."""
        first = self._at(pair[0])
        first = first[first + 1 < len(self.memory)]
        follows = self.found[first + 1] == self.lexemes[pair[1]]
        follows &= self.memory[first + 1] == self.memory[first]
        return np.unique(self.memory[first[follows]])

    def scores(self, question: Question) -> Floats:
        """Return the score of every memory; 0 where it is no answer."""
        total = len(self.corpus)
        words = [*question.words, *(word for pair in question.phrases for word in pair)]
        by_lexeme: dict[int, Integers] = {int(self.lexemes[word]): self.memory[self._at(word)] for word in words}
        terms = list(by_lexeme.values())
        if question.words:
            terms += [self._together(pair) for pair in question.phrases]
        scores = np.zeros(total)
        for memories in terms:
            first = np.flatnonzero(np.diff(memories, prepend=-1))
            times = np.diff(first, append=len(memories))
            holders = memories[first]
            weight = (K1 + 1) * np.log((total + 1) / (len(holders) + 0.5))
            scores[holders] += weight * (1 - 1 / (1 + times / self.norm[holders]))
        if not question.words:
            for pair in question.phrases:
                scores[np.setdiff1d(np.arange(total), self._together(pair))] = 0
        if question.without is not None:
            scores[self.memory[self._at(question.without)]] = 0
        if question.kind is not None:
            scores[self.corpus.kinds != question.kind] = 0
        return scores

    def judge(self, question: Question, answer: Sequence[int]) -> tuple[bool, float, bool]:
        """Judge an answer: is it the best, the share of the best in it, has it too few.

        Memories that score alike are ties, any of which will do.
        """
        scores = self.scores(question)
        wanted = min(LIMIT, int(np.count_nonzero(scores)))
        if not wanted:
            return not answer, 1.0, False
        least = np.partition(scores, -wanted)[-wanted] * (1 - 1e-9)
        hits = sum(scores[memory] >= least for memory in set(answer))
        return bool(hits == wanted == len(answer)), float(min(hits, wanted) / wanted), len(answer) < wanted
