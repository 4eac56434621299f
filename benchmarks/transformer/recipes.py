"""One recipe a published row: configuration, and the figures that were published for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from models.transformer.config import ModelConfig, TrainConfig

#: 1.5 times as fast as float32 on CPUs that have it (AVX512-BF16, AMX), and R@20 and MRR@20 of Diginetica's first test are the same.
HALF: Literal["bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Periods:
    """Of ADER's protocol. first: of period 0; then: of each later period, from the weights before it; replay: sessions of older
    periods learned with each new one, in parts of its own number."""

    folder: str
    model: ModelConfig
    first: TrainConfig
    then: TrainConfig
    replay: float
    published: dict[str, tuple[float, float]]  # R@20, MRR@20


@dataclass(frozen=True)
class LeaveOneOut:
    """Of a leave-one-out row, filtered and split as the published code does (`published_by`)."""

    file: str
    model: ModelConfig
    train: TrainConfig
    published: dict[str, tuple[float, float]]  # HR@10, NDCG@10


_SESSIONS = ModelConfig(d=64, n_blocks=1, block="sasrec", head="cosine", max_len=50, dropout=0.5)
#: Found on the first two tests of Diginetica alone; cheaper than what measures best (docs/transformer.md, Open).
_STEP = TrainConfig(tokens=4_096, n_negatives=1_024, learning_rate=1e-2, precision=HALF)

ADER = {
    "diginetica": Periods(
        "ader_diginetica", _SESSIONS, replace(_STEP, epochs=15), replace(_STEP, epochs=12), 1.0,
        {"ADER": (.5021, .1732), "full retrain": (.5003, .1731), "fine-tune only": (.4728, .1601)}),
    "yoochoose": Periods(
        "ader_yoochoose", _SESSIONS, replace(_STEP, epochs=10), replace(_STEP, epochs=6), 1.0,
        {"ADER": (.7238, .3671), "full retrain": (.7222, .3665)}),
}
#: Items of the history are not ranked: `filter_seen: True` in the configuration of Klenitskiy and Vasilev's code (2023), whose
#: figures these are. Trained without the last two items of each user; the last but one is part of the history at the test.
LEAVE_ONE_OUT = {
    "ml-1m": LeaveOneOut(
        "ml-1m/ml-1m.txt", ModelConfig(d=64, n_blocks=2, block="sasrec", head="dot", max_len=200, dropout=0.2),
        TrainConfig(tokens=6_400, loss="full", epochs=60, learning_rate=2e-3, precision=HALF),
        {"SASRec, 3,000 negatives": (.3159, .1857), "SASRec, full softmax": (.3152, .1821), "gSASRec": (.3003, .1726), "BERT4Rec": (.2843, .1537)}),
    "beauty": LeaveOneOut(
        "beauty_feisun/beauty.txt", ModelConfig(d=64, n_blocks=1, block="sasrec", head="cosine", max_len=50, dropout=0.5),
        TrainConfig(tokens=4_096, epochs=12, learning_rate=1e-2, precision=HALF),
        {"SASRec, full softmax": (.0533, .0327), "BERT4Rec": (.0338, .0187)}),
}
