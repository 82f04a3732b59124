// From the decoder's logits to token ids: beam search with captioner's rules, as captioner/inference/decoding.py and
// rules.py do it by default. Log-probabilities of hypotheses are the decoder's own. Words are chosen, and hypotheses
// ranked, by the product of the decoder's probabilities and of what the picture itself says of each word.

export const [PAD, START, END, UNK] = [0, 1, 2, 3];
const SAID_AGAIN = Math.log(0.1); // the most that a picture speaks for a word which the caption has said
const STUTTER = 4; // the number of words after a conjunction that must differ from the word before it

/** Logarithms of the softmax of some numbers. */
export function logSoftmax(values) {
  let most = -Infinity, sum = 0;
  for (const value of values) if (value > most) most = value;
  for (const value of values) sum += Math.exp(value - most);
  const shift = most + Math.log(sum);
  return Float64Array.from(values, (value) => value - shift);
}

/** Log-probabilities of the next word, with the evidence for each word that is left once `written` is said. */
export function weighed(logprobs, evidence, written, { decoding, rules }) {
  if (!evidence || !decoding.evidence) return logprobs;
  const sums = logprobs.map((value, token) => value + decoding.evidence * evidence[token]);
  if (rules.function_words) {
    for (const token of written) {
      if (rules.function_words.includes(token)) continue;
      sums[token] = logprobs[token] + decoding.evidence * Math.min(evidence[token], SAID_AGAIN);
    }
  }
  return logSoftmax(sums);
}

/** Scores of the next token: the log-probabilities, with -Infinity where a rule forbids the token. */
export function scores(logprobs, written, { decoding, rules }) {
  const found = logprobs.slice(), t = written.length, n = decoding.no_repeat_ngram;
  for (const token of [PAD, START, UNK]) found[token] = -Infinity;
  if (!decoding.allow_stutter) {
    for (let i = Math.max(1, t - STUTTER); i < t; i++) {
      if (rules.conjunctions.includes(written[i])) found[written[i - 1]] = -Infinity;
    }
  }
  if (n) { // the tokens that would repeat a sequence of n tokens
    for (let i = 0; i + n <= t; i++) {
      const same = written.slice(i, i + n - 1).every((token, place) => token === written[t - n + 1 + place]);
      if (same) found[written[i + n - 1]] = -Infinity;
    }
  }
  if (t < decoding.min_length) found[END] = -Infinity;
  if (found.every((value) => value === -Infinity)) found[END] = Math.max(logprobs[END], -Number.MAX_VALUE);
  return found;
}

/** The places of the k largest numbers, the largest first, without those that are -Infinity. */
export function largest(values, k) {
  const best = [];
  for (let place = 0; place < values.length; place++) {
    if (values[place] === -Infinity || (best.length === k && !(values[place] > values[best[k - 1]]))) continue;
    let at = best.length;
    while (at && values[place] > values[best[at - 1]]) at--;
    best.splice(at, 0, place);
    if (best.length > k) best.pop();
  }
  return best;
}

/**
 * Captions as hypotheses { tokens, logprobs }, the best first. `step(tokens, state, parents)` reads one token for each
 * row, where the rows of the state before are picked by `parents`; it gives { logits, state }, with logits by row.
 * `settings` are those of the model: { decoding, rules }.
 */
export async function beam(step, start, evidence, settings) {
  const { beam_size: k, max_length: most, length_penalty: penalty } = settings.decoding;
  let rows = [{ tokens: [], logprobs: [], sum: 0 }], finished = [];
  let { logits, state } = await step([START], start, [0]);
  for (let t = 0; t < most; t++) {
    const next = [];
    rows.forEach((row, parent) => {
      const full = logSoftmax(logits[parent]);
      const found = scores(weighed(full, evidence, row.tokens, settings), row.tokens, settings);
      for (const token of largest(found, k)) {
        const [tokens, logprobs] = [[...row.tokens, token], [...row.logprobs, full[token]]];
        next.push({ tokens, logprobs, sum: row.sum + found[token], parent, token });
      }
    });
    const best = largest(next.map((row) => row.sum), k).map((place) => next[place]);
    for (const row of best) if (row.token === END) finished.push({ ...row, score: row.sum / (t + 1) ** penalty });
    finished = largest(finished.map((row) => row.score), k).map((place) => finished[place]);
    rows = best.filter((row) => row.token !== END);
    // A sum only falls, so the best score that an unfinished hypothesis can reach is its sum at the longest length.
    const reachable = rows.length ? rows[0].sum / most ** penalty : -Infinity;
    if (!rows.length || t + 1 === most || (finished.length === k && finished[k - 1].score >= reachable)) break;
    ({ logits, state } = await step(rows.map((row) => row.token), state, rows.map((row) => row.parent)));
  }
  return [...finished, ...rows].slice(0, k);
}
