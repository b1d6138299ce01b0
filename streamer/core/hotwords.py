"""Words and phrases that are to be expected: which of them a growing text may be spelling.

All phrases are followed at once from every word's beginning. A phrase counts once its last letter
is followed by the end of the word; until then its letters are only lent.

Theory of operation. The phrases form a trie, and a state is one of its nodes: the longest stretch
at the text's end that begins with a word and may become a phrase. The shorter ones are found by
links, as in the automaton of Aho and Corasick, but only from a word's beginning. Everything is
computed when the phrases are known, so that threads may share an automaton.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Spellings: TypeAlias = Mapping[tuple[str, ...], tuple[str, ...]]
"""Words as the model spells them → the same words with capitals, or "" for those without one."""


class Hotwords:
    """An automaton over token ids; its states are small integers, 0 at a text's beginning.

    It never changes: threads may share it.

    Args:
        phrases: each the ids of its letters, with one delimiter between words.
        delimiter: the id that parts words.
        spellings: how phrases that have capitals of their own are written.

    Attributes:
        lent: for each state, letters of the longest phrase that may be being spelled.
    """

    def __init__(
        self, phrases: Iterable[Sequence[int]], delimiter: int, spellings: Spellings | None = None
    ) -> None:
        self._delimiter = delimiter
        self._spellings = dict(spellings or {})
        self._longest = max(map(len, self._spellings), default=0)
        children: list[dict[int, int]] = [{}]
        letters = [0]
        worth = [0]  # letters of the phrase that ends here
        for phrase in phrases:
            node = 0
            for token in phrase:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    letters.append(letters[node] + (token != delimiter))
                    worth.append(0)
                node = children[node][token]
            worth[node] = letters[node]

        self._none = len(children)
        """The state in which no phrase can be being spelled."""
        self._steps: list[dict[int, int]] = [{} for _ in range(self._none + 1)]
        self._completed = [*worth, 0]
        self._steps[self._none] = {delimiter: 0}
        # Of the next shorter stretch. Nodes come after their parents, links lead to shorter ones.
        links = [self._none] * self._none
        queue = [0]
        for node in queue:
            link = links[node]
            self._completed[node] += self._completed[link]
            self._steps[node] = self._steps[link] | children[node]
            for token, child in children[node].items():
                links[child] = self._steps[link].get(token, self._none)
                queue.append(child)
        self.lent = (*letters, 0)

    def step(self, state: int, token: int) -> tuple[int, int]:
        """The state after one more token, and the letters of the phrases that it completes."""
        following = self._steps[state].get(token, self._none)
        return following, self._completed[state] if token == self._delimiter else 0

    def spelling(self, state: int) -> bool:
        """Whether what was spelled since the word's beginning may still become a phrase."""
        return state != self._none

    def respell(self, raw: Sequence[str], shown: Sequence[str]) -> list[str]:
        """Words for people, with the capitals that the phrases among them have of their own.

        Args:
            raw: as the model spells them.
            shown: the same, as they would be written without hotwords.
        """
        spelled = list(shown)
        first = 0
        while first < len(spelled):
            for count in range(min(self._longest, len(spelled) - first), 0, -1):
                known = self._spellings.get(tuple(raw[first : first + count]))
                if known:
                    spelled[first : first + count] = [
                        word or usual for word, usual in zip(known, spelled[first:], strict=False)
                    ]
                    first += count - 1
                    break
            first += 1
        return spelled
