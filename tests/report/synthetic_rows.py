"""Rows of a synthetic experiment, with curves of the shapes that real experiments have."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from posbench.results.rows import COLUMNS

TRAIN_LEN = 64
LENGTHS = (64, 128, 256, 512, 1024)
RETRIEVAL_LENGTHS = (64, 128, 256)
ORDER = ["nope", "sinusoidal", "learned", "rope", "alibi", "t5", "kerple_log"]
BUCKETS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

# Bits per byte at 1, 2, 4, 8, 16 times the training length; None: undefined.
BITS = {
    ("nope", "none"): (2.68, 3.01, 3.30, 3.44, 3.5),
    ("sinusoidal", "none"): (2.50, 4.62, 4.72, 4.66, 4.7),
    ("learned", "none"): (2.60, None, None, None, None),
    ("rope", "none"): (2.09, 2.40, 3.18, 3.75, 4.1),
    ("alibi", "none"): (2.33, 2.34, 2.35, 2.35, 2.36),
    ("t5", "none"): (2.71, 2.97, 3.24, 3.41, 3.5),
    ("kerple_log", "none"): (2.25, 2.25, 2.26, 2.27, 2.27),
    ("rope", "pi"): (2.09, 2.89, 3.49, 3.89, 4.0),
    ("rope", "ntk"): (2.09, 2.17, 2.70, 3.14, 3.9),
    ("rope", "yarn"): (2.09, 2.27, 2.54, 2.93, 3.4),
    ("rope", "rerope"): (2.09, 2.09, 2.11, 2.13, 2.15),
    ("rope", "window"): (2.09, 2.10, 2.10, 2.10, 2.10),
}
# Accuracy at 1 time, and by five depths at 4 times the training length.
RETRIEVAL = {
    ("nope", "none"): (0.47, (0.1, 0.1, 0.1, 0.1, 0.1)),
    ("sinusoidal", "none"): (0.97, (0.97, 0.80, 0.08, 0.09, 0.05)),
    ("learned", "none"): (0.96, None),
    ("rope", "none"): (0.97, (0.06, 0.09, 0.08, 0.30, 0.47)),
    ("alibi", "none"): (0.98, (0.41, 0.56, 0.84, 0.92, 0.97)),
    ("t5", "none"): (0.93, (0.69, 0.23, 0.09, 0.14, 0.06)),
    ("kerple_log", "none"): (0.99, (0.92, 0.94, 0.97, 0.95, 1.0)),
    ("rope", "pi"): (0.97, (0.56, 0.28, 0.36, 0.33, 0.31)),
    ("rope", "ntk"): (0.97, (0.13, 0.39, 0.83, 0.97, 0.11)),
    ("rope", "yarn"): (0.97, (0.55, 0.80, 0.92, 0.84, 0.78)),
    ("rope", "rerope"): (0.99, (0.92, 0.98, 0.98, 0.97, 0.91)),
    ("rope", "window"): (0.97, (0.11, 0.03, 0.03, 0.89, 0.95)),
}
NOT_LEARNED = {("nope", "none")}


def synthetic_rows(
    seeds: int = 1, documents: int = 32, contexts: int = 32, schemes: Sequence[str] = ORDER
) -> pd.DataFrame:
    """An extrapolation experiment of seven schemes and five extensions of rope."""
    generator = np.random.default_rng(7)
    hardness_D = generator.normal(0.0, 0.25, documents)
    frames = []
    for scheme, extension in BITS:
        for seed in range(seeds if scheme in schemes else 0):
            series = _Series(scheme, extension, seed, generator)
            frames += series.fixed_targets(hardness_D) + series.non_overlapping(hardness_D)
            frames += series.prefix(hardness_D) + series.key_value(contexts)
    return completed(pd.concat(frames, ignore_index=True))


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds the missing columns of the schema, empty."""
    for column in set(COLUMNS) - set(rows):
        rows[column] = pd.array([None] * len(rows), dtype="Int64")
    return rows[list(COLUMNS)]


class _Series:
    def __init__(self, scheme: str, extension: str, seed: int, generator: np.random.Generator) -> None:
        self.key, self.seed, self.generator = (scheme, extension), seed, generator
        self.shift = generator.normal(0.0, 0.03)

    def fixed_targets(self, hardness_D: np.ndarray) -> list[pd.DataFrame]:
        return [
            self._losses("fixed_targets", length, bits, hardness_D, np.full(len(hardness_D), TRAIN_LEN // 4))
            for length, bits in zip(LENGTHS, BITS[self.key], strict=True)
        ]

    def non_overlapping(self, hardness_D: np.ndarray) -> list[pd.DataFrame]:
        return [
            self._losses(
                "non_overlapping", length, bits, hardness_D, np.full(len(hardness_D), 1024 - 1024 // length)
            )
            for length, bits in zip(LENGTHS, BITS[self.key], strict=True)
        ]

    def prefix(self, hardness_D: np.ndarray) -> list[pd.DataFrame]:
        if self.key[1] in ("pi", "ntk", "yarn") or self.key[0] == "learned":
            return []
        bits = np.interp(np.log2(BUCKETS), np.log2(LENGTHS), BITS[self.key])
        bits = bits + 3.0 / np.sqrt(np.array(BUCKETS))
        sizes = np.diff((1, *BUCKETS))
        return [
            self._losses("prefix", 1024, bit, hardness_D, np.full(len(hardness_D), size), position=end)
            for end, bit, size in zip(BUCKETS, bits, sizes, strict=True)
        ]

    def key_value(self, contexts: int) -> list[pd.DataFrame]:
        return [self._retrieval(length, contexts) for length in RETRIEVAL_LENGTHS]

    def _losses(self, protocol, length, bits, hardness_D, n_D, position=None):
        common = {"task": "perplexity", "protocol": protocol, "eval_len": length, "n": n_D, "example": 0}
        common |= {"doc_id": [f"doc{d:03d}" for d in range(len(n_D))], "position": position}
        if bits is None:
            rows = pd.DataFrame(
                common | {"metric": "nll", "value_sum": np.nan, "n": 0, "unit": "nat", "status": "undefined"}
            )
            return self._frame(rows)
        noise_D = self.generator.normal(0.0, 0.05, len(n_D))
        nats_D = (bits + self.shift + hardness_D + noise_D) * np.log(2) * n_D
        nll = pd.DataFrame(common | {"metric": "nll", "value_sum": nats_D, "unit": "nat", "status": "ok"})
        size = pd.DataFrame(
            common | {"metric": "bytes", "value_sum": n_D.astype(float), "unit": "byte", "status": "ok"}
        )
        return self._frame(pd.concat([nll, size]))

    def _retrieval(self, length, contexts):
        home, far = RETRIEVAL[self.key]
        records = length * 9 // 32
        learned = self.key not in NOT_LEARNED
        status = "ok" if learned else "not_learned"
        if far is None and length > TRAIN_LEN:
            row = {
                "task": "key_value",
                "protocol": "synthetic_records",
                "eval_len": length,
                "doc_id": "",
                "example": 0,
            }
            row |= {
                "position": None,
                "depth": None,
                "metric": "exact_match",
                "value_sum": None,
                "n": 0,
                "unit": "",
                "status": "undefined",
            }
            return self._frame(pd.DataFrame([row]))
        depth = np.linspace(0, 1, records)
        share = {64: 0.0, 128: 0.5, 256: 1.0}[length]
        accuracy = (1 - share) * home + share * np.interp(depth, np.linspace(0, 1, 5), far or (0,) * 5)
        right = self.generator.random((contexts, records)) < accuracy + self.shift
        ids = np.repeat([f"ctx{c:03d}" for c in range(contexts)], records)
        common = {
            "task": "key_value",
            "protocol": "synthetic_records",
            "eval_len": length,
            "doc_id": ids,
            "n": 1,
        }
        common |= {"example": np.arange(right.size), "position": np.tile(np.arange(records), contexts)}
        common |= {"depth": np.tile(depth, contexts), "unit": "", "status": status}
        exact = pd.DataFrame(common | {"metric": "exact_match", "value_sum": right.ravel().astype(float)})
        logprob = pd.DataFrame(
            common | {"metric": "logprob", "value_sum": np.where(right.ravel(), -0.1, -4.0)}
        )
        per = {
            "task": "key_value",
            "protocol": "synthetic_records",
            "eval_len": length,
            "unit": "",
            "status": status,
        }
        per |= {
            "doc_id": [f"ctx{c:03d}" for c in range(contexts)],
            "example": 0,
            "n": records,
            "position": None,
            "depth": None,
        }
        values = {"predicted_in_context": 0.98, "chance": 1 / 16, "random_in_context": 0.05 + 1 / records}
        whole = [
            pd.DataFrame(per | {"metric": name, "value_sum": value * records})
            for name, value in values.items()
        ]
        return self._frame(pd.concat([exact, logprob, *whole]))

    def _frame(self, rows: pd.DataFrame) -> pd.DataFrame:
        scheme, extension = self.key
        cell = rows["task"] + "-" + rows["protocol"] + "-" + rows["eval_len"].astype(str)
        rows = rows.assign(
            cell_id=f"{scheme}-{extension}-{self.seed}-" + cell,
            model_id=f"{scheme}-{self.seed}",
            scheme=scheme,
            extension=extension,
            model_size="tiny",
            n_params=401_216,
            train_len=TRAIN_LEN,
            train_tokens=921_600,
            train_seed=self.seed,
            corpus="sources",
            variant="",
            eval_seed=0,
            kernel="sdpa",
            dtype="float32",
        )
        rows["position"] = pd.array(rows["position"].tolist(), dtype="Int64")
        rows["value_sum"] = rows["value_sum"].astype(float)
        rows["depth"] = rows["depth"].astype(float) if "depth" in rows else np.nan
        return rows
