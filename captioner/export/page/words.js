// From token ids to what a person reads, and to what it is worth: as captioner/vocab.py, results.py and trust.py.

import { END } from "./decode.js";

const logistic = (weights, inputs) =>
  1 / (1 + Math.exp(-inputs.reduce((sum, input, place) => sum + input * weights[place], weights.at(-1))));

/** The sentence: clitics are joined to their words, and the first letter is a capital. */
export function sentence(words, tokens = "word") {
  let text = "";
  for (const word of words) {
    const joined = tokens === "character" || !text || word.startsWith("'") || word === "n't";
    text += joined ? word : " " + word;
  }
  const [first = ""] = text;
  return first.toUpperCase() + text.slice(first.length);
}

/** The words of a hypothesis, as people spell them. */
function spelled(tokens, { vocabulary, spellings }) {
  const words = tokens.filter((token) => token !== END).map((token) => vocabulary[token]);
  return words.map((word) => (Object.hasOwn(spellings, word) ? spellings[word] : word));
}

/**
 * The caption of a picture, from the hypotheses { tokens, logprobs } of a beam, the best first:
 * { text, words: [{ word, probability }], confidence, familiar, doubt, others: [text] }.
 * `doubt` is "", "not sure" or "unfamiliar". `evidence` and `kind` are those of the picture. A model that does not know
 * what its captions are worth gives `perWord`, the geometric mean of the probabilities, instead of the two numbers.
 */
export function caption(hypotheses, evidence, kind, header) {
  const [{ tokens, logprobs }, ...others] = hypotheses;
  const words = spelled(tokens, header), ids = tokens.filter((token) => token !== END);
  const found = {
    text: sentence(words, header.tokens),
    words: words.map((word, place) => ({ word, probability: Math.exp(logprobs[place]) })),
    others: others.map((other) => sentence(spelled(other.tokens, header), header.tokens)),
    doubt: "",
  };
  const trust = header.trust, number = Math.max(1, ids.length);
  if (!trust) {
    found.perWord = Math.exp(logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length);
    return found;
  }
  const mean = ids.reduce((sum, _, place) => sum + logprobs[place], 0) / number;
  const seen = evidence ? ids.reduce((sum, token) => sum + evidence[token], 0) / number : 0;
  const familiar = logistic(trust.familiar, [...kind]);
  const confidence = logistic(trust.confidence, [mean, ids.length, seen]);
  found.familiar = familiar;
  found.confidence = confidence * Math.min(1, familiar / Math.max(trust.min_familiar, 1e-6));
  if (familiar < trust.min_familiar) found.doubt = "unfamiliar";
  else if (found.confidence < trust.min_confidence) found.doubt = "not sure";
  return found;
}

/** A probability as people read it: 37%, 4.2%, 0.003%. */
export function percent(probability) {
  const hundredths = 100 * probability;
  return `${probability >= 0.1 ? hundredths.toFixed(0) : Number(hundredths.toPrecision(2))}%`;
}
