"""Compare the ways of decoding: their scores, their distinct captions and their time.

    python benchmarks/decoding.py --captions FILE --images DIR [--split-list FILE] [--checkpoint FILE]

The pictures are encoded once. The rows for sampling are means over three seeds. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import captioner
from captioner.data.captions import read_captions
from captioner.data.splits import find_examples, present_files, read_split_list
from captioner.evaluation.scores import score_captions

WAYS = {
    "greedy": [captioner.DecodeOptions("greedy")],
    "sample": [captioner.DecodeOptions("sample", seed=seed) for seed in range(3)],
    "sample, top-p 0.9, temperature 0.7": [
        captioner.DecodeOptions("sample", top_p=0.9, temperature=0.7, seed=seed) for seed in range(3)
    ],
    "beam 3": [captioner.DecodeOptions(beam_size=3)],
    "beam 5": [captioner.DecodeOptions(beam_size=5)],
}


def main() -> None:
    """Score every way of decoding and print the table."""
    parser = argparse.ArgumentParser(description="Compare the ways of decoding by their scores and their time.")
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--split-list", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    captions = read_captions(args.captions).captions
    names = read_split_list(args.split_list) if args.split_list else present_files(captions, args.images)
    examples = find_examples(captions, args.images, names)
    model = captioner.load(args.checkpoint)
    features = model.encode(example.path for example in examples)
    references = [example.captions for example in examples]
    print(f"| decoding | BLEU-1 | BLEU-4 | CIDEr | distinct of {len(examples)} | words | time (greedy = 1) |")
    print("|---|---|---|---|---|---|---|")
    model.caption_features(features, WAYS["greedy"][0])  # warm up: the first call takes longer
    greedy = 0.0
    for name, runs in WAYS.items():
        rows = []
        for options in runs:
            started = time.perf_counter()
            written = model.caption_features(features, options)
            seconds = time.perf_counter() - started
            scores = score_captions([caption.text for caption in written], references)
            words = statistics.mean(len(caption.tokens) for caption in written)
            rows.append((scores["bleu_1"], scores["bleu_4"], scores["cider"], scores["distinct"], words, seconds))
        bleu_1, bleu_4, cider, distinct, words, seconds = (
            statistics.mean(column) for column in zip(*rows, strict=True)
        )
        greedy = greedy or seconds
        ratio = seconds / greedy
        print(f"| {name} | {bleu_1:.1f} | {bleu_4:.1f} | {cider:.1f} | {distinct:.0f} | {words:.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
