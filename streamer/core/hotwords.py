"""Words and phrases that are to be expected: which of them a growing text may be spelling.

All phrases are followed at once from every word's beginning. A phrase counts once its last letter
is followed by the end of the word; until then its letters are only lent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Hotwords:
    """An automaton over token ids; its states are small integers, 0 at a text's beginning.

    Args:
        phrases: each the ids of its letters, with one delimiter between words.
        delimiter: the id that parts words.

    Attributes:
        lent: for each state, letters of the longest phrase that may be being spelled.
    """

    def __init__(self, phrases: Iterable[Sequence[int]], delimiter: int) -> None:
        self._delimiter = delimiter
        self._children: list[dict[int, int]] = [{}]
        self._letters = [0]
        self._worth = [0]  # letters of the phrase that ends here
        for phrase in phrases:
            node = 0
            for token in phrase:
                if token not in self._children[node]:
                    self._children[node][token] = len(self._children)
                    self._children.append({})
                    self._letters.append(self._letters[node] + (token != delimiter))
                    self._worth.append(0)
                node = self._children[node][token]
            self._worth[node] = self._letters[node]
        # A state is the set of trie nodes that open phrases have come to.
        self._states: dict[tuple[int, ...], int] = {}
        self._nodes: list[tuple[int, ...]] = []
        self._steps: dict[tuple[int, int], tuple[int, int]] = {}
        self.lent: list[int] = []
        self._state((0,))

    def step(self, state: int, token: int) -> tuple[int, int]:
        """The state after one more token, and the letters of the phrases that it completes."""
        known = self._steps.get((state, token))
        if known is None:
            nodes = self._nodes[state]
            children = [self._children[n][token] for n in nodes if token in self._children[n]]
            completed = 0
            if token == self._delimiter:
                children.append(0)
                completed = sum(self._worth[node] for node in nodes)
            known = self._steps[state, token] = self._state(tuple(children)), completed
        return known

    def spelling(self, state: int) -> bool:
        """Whether what was spelled since the word's beginning may still become a phrase."""
        return bool(self._nodes[state])

    def _state(self, nodes: tuple[int, ...]) -> int:
        if nodes not in self._states:
            self._states[nodes] = len(self._nodes)
            self._nodes.append(nodes)
            self.lent.append(max((self._letters[node] for node in nodes), default=0))
        return self._states[nodes]
