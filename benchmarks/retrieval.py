"""Find pictures by the sentences of people: by the matcher, by the captioner's own likelihood, and by both.

    python benchmarks/retrieval.py --captions FILE --images DIR [--split-list FILE] [--sentences 5000] [--first 100]

The likelihood P(sentence | picture) ranks the --first pictures that the matcher finds again, which takes a step of the
decoder for each word and picture. --first 0 means all of them. Both together is cosine / 0.05 + weight * log P. The
weight is chosen by cross-fitting: that for each fifth of the sentences comes from the others.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch

import captioner
from captioner.data.captions import read_captions
from captioner.evaluation.pairs import Pairs
from captioner.evaluation.retrieval import recalls
from captioner.inference.torch_engine import TorchEngine, load_engine
from captioner.network.header import find_checkpoint
from captioner.vocab import END, START

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
FOLDS = 5


@torch.inference_mode()
def log_likelihood(engine: TorchEngine, features: np.ndarray, sentence: str) -> np.ndarray:
    """log P(sentence | picture) of pictures with features (N, F), (N,)."""
    ids = [START, *engine.about.vocabulary.encode(sentence), END]
    tokens = torch.tensor([ids]).expand(len(features), -1)
    logits = engine.decoder(engine.on_device(features), tokens[:, :-1]).float()
    chosen = logits.gather(2, tokens[:, 1:, None])[:, :, 0] - logits.logsumexp(2)
    return np.asarray(chosen.sum(1).numpy())


def main() -> None:
    """Print the recall of each way of ranking."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--split-list", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--sentences", type=int, default=5000)
    parser.add_argument("--first", type=int, default=100)
    args = parser.parse_args()

    pairs = Pairs.of(read_captions(args.captions), None, args.split_list)
    pairs.find_pictures(args.images)
    engine = load_engine(
        find_checkpoint(args.checkpoint), "cpu", "float32"
    )  # torch reads whole sentences slowly in bfloat16
    model = captioner.load(args.checkpoint, precision="float32")
    reader, names = model.reader(), list(pairs.files)
    features = model.encode(list(pairs.files.values()))
    queries = [(place, text) for place, name in enumerate(names) for text in pairs.references[name]]
    queries = random.Random(0).sample(queries, min(args.sentences, len(queries)))
    sentences = reader.sentences([text for _, text in queries])
    cosines = sentences @ reader.pictures(features).T / 0.05
    first = args.first or len(names)
    by_likelihood, by_both = [], []
    begin = time.perf_counter()
    for (own, text), scores in zip(queries, cosines, strict=True):
        order = np.argsort(-scores, kind="stable")
        found = order[:first]
        likelihood = log_likelihood(engine, features[found], text)
        lost = int(np.flatnonzero(order == own)[0]) + 1  # where the matcher has it, if it is not among the first
        own_place = np.flatnonzero(found == own)
        ranks = []
        for weight in (*WEIGHTS, None):
            both = likelihood if weight is None else scores[found] + weight * likelihood
            ranks.append(int((both >= both[own_place[0]]).sum()) if len(own_place) else lost)
        by_both.append(ranks[:-1])
        by_likelihood.append(ranks[-1])
    seconds = (time.perf_counter() - begin) / len(queries)

    table = np.array(by_both)  # (Q, weights)
    fold = np.arange(len(table)) % FOLDS
    fitted, chosen = np.zeros(len(table), np.int64), []
    for number in range(FOLDS):
        means = [(table[fold != number, column] <= 1).mean() for column in range(len(WEIGHTS))]
        best = int(np.argmax(means))
        chosen.append(WEIGHTS[best])
        fitted[fold == number] = table[fold == number, best]
    again = f"the first {first} ranked again in {1000 * seconds:.0f} ms each"
    print(f"{len(names)} pictures, {len(queries)} sentences, {again}")
    for label, ranks_of in (("matcher", table[:, 0]), ("likelihood", np.array(by_likelihood)), ("both", fitted)):
        print(f"{label:10s}", "  ".join(f"{name} {value:g}" for name, value in recalls(ranks_of).items()))
    print(f"weights {chosen}")


if __name__ == "__main__":
    main()
