"""A synthetic stream with tastes, taught to the online factors: vectors as learning leaves them, not random ones.

Sessions of about 8 events keep to a topic (70%), its family of 16 topics (20%), or whatever is popular (10%); within a topic
items are taken by 1 / (rank + 10). A topic has 120 items on average, log-normal; items are born at a steady rate all along
the stream. A session is a user; lessons are made as the workers make them, each older item saying 0.8 as much.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba as nb
import numpy as np

from models.lessons import LESSON, N_BACK, N_CONTEXT, Lessons
from models.mf import MatrixFactors
from models.mf_steps import N_FACTORS

RECENCY = 0.8
PER_TOPIC = 120
LIVE_SESSIONS = 256
SESSION_EVENTS = 8.0
KNOWN_FROM_THE_START = 1_000


@nb.njit(cache=True)
def _draw(
    n_events: int, n_items: int, topic: np.ndarray, order: np.ndarray, starts: np.ndarray, share: np.ndarray, topic_share: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Sessions and items of events. `order`: items topic by topic, `share`: their cumulated popularity in that order."""
    np.random.seed(seed)
    n_topics = len(starts) - 1
    sessions, items = np.empty(n_events, np.int32), np.empty(n_events, np.int32)
    live, at_topic, left = np.zeros(LIVE_SESSIONS, np.int32), np.zeros(LIVE_SESSIONS, np.int64), np.zeros(LIVE_SESSIONS, np.int64)
    n_sessions, n_born = 0, 0
    for e in range(n_events):
        s = np.random.randint(LIVE_SESSIONS)
        if left[s] == 0:
            live[s] = n_sessions
            n_sessions += 1
            left[s] = 1 + int(-np.log(1.0 - np.random.random()) * SESSION_EVENTS)
            at_topic[s] = np.searchsorted(topic_share, np.random.random() * topic_share[-1])
        left[s] -= 1
        sessions[e] = live[s]
        if n_born < n_items and n_born * n_events <= e * n_items:
            items[e] = n_born
            at_topic[s] = topic[n_born]
            n_born += 1
            continue
        while True:
            kind, t = np.random.random(), at_topic[s]
            if kind > 0.9:
                t = np.searchsorted(topic_share, np.random.random() * topic_share[-1])
            elif kind > 0.7:
                t = min(n_topics - 1, t // 16 * 16 + np.random.randint(16))
            first, last = starts[t], starts[t + 1]
            below = share[first - 1] if first else 0.0
            mark = below + np.random.random() * (share[last - 1] - below)
            item = order[min(last - 1, first + np.searchsorted(share[first:last], mark))]
            if item < max(n_born, KNOWN_FROM_THE_START):
                break
        items[e] = item
    return sessions, items


@nb.njit(cache=True)
def _note(
    sessions: np.ndarray, items: np.ndarray, histories: np.ndarray, n_in: np.ndarray, heads: np.ndarray, context: np.ndarray,
    shares: np.ndarray,
) -> tuple[int, int]:
    """Lessons of events: what each session had before, newest first."""
    n, m = 0, 0
    for e in range(len(sessions)):
        session, item = sessions[e], np.uint64(items[e] + 1)
        k = n_in[session]
        if k:
            heads[n]["item"], heads[n]["weight"] = item, 1.0
            heads[n]["n_context"], heads[n]["n_back"] = k, min(N_BACK, k)
            for j in range(k):
                context[m] = histories[session, j]
                shares[m] = max(1, round(255 * RECENCY**j))
                m += 1
            n += 1
        at = 0
        while at < k and histories[session, at] != item:
            at += 1
        if at == k and k < N_CONTEXT:
            n_in[session] = k + 1
        for j in range(min(at, N_CONTEXT - 1), 0, -1):
            histories[session, j] = histories[session, j - 1]
        histories[session, 0] = item
    return n, m


class Tastes:
    """The stream and the model. `teach` goes on in it; `users` are the vectors of those who came last."""

    def __init__(self, n_items: int, n_events: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        size = np.cumsum(rng.lognormal(0.0, 1.0, max(2, n_items // PER_TOPIC)))
        _, topic = np.unique(np.searchsorted(size, rng.random(n_items) * size[-1]), return_inverse=True)
        popularity = 1.0 / (rng.permutation(n_items) + 10.0)
        order = np.argsort(topic, kind="stable")
        starts = np.searchsorted(topic[order], np.arange(topic.max() + 2))
        topic_share = np.cumsum(np.bincount(topic, popularity))
        self.sessions, self.items = _draw(
            n_events, n_items, topic, order, starts, np.cumsum(popularity[order]), topic_share, seed
        )
        self.model, self.at = MatrixFactors(), 0
        n_sessions = int(self.sessions.max()) + 1
        self._histories, self._n_in = np.zeros((n_sessions, N_CONTEXT), np.uint64), np.zeros(n_sessions, np.int64)

    def teach(self, last: int, step: int) -> Iterator[np.ndarray]:
        """Teach events up to `last`, `step` at a time; yields the sessions of each."""
        while self.at < last:
            part = slice(self.at, min(last, self.at + step))
            sessions, items = self.sessions[part], self.items[part]
            heads, context = np.zeros(len(sessions), LESSON), np.empty(N_CONTEXT * len(sessions), np.uint64)
            shares = np.empty(len(context), np.uint8)
            n, m = _note(sessions, items, self._histories, self._n_in, heads, context, shares)
            self.model.teach(Lessons(heads[:n], context[:m], shares[:m]))
            self.at = part.stop
            yield sessions

    def users(self, sessions: np.ndarray) -> np.ndarray:
        """Vectors of these sessions' users as they are now, (B, N_FACTORS) float32."""
        found = np.zeros((len(sessions), N_FACTORS), np.float32)
        for b, session in enumerate(sessions.tolist()):
            n = self._n_in[session]
            weights = RECENCY ** np.arange(n, dtype=np.float32)
            found[b] = weights @ self.model.x[self.model.slots(self._histories[session, :n])] / weights.sum()
        return found
