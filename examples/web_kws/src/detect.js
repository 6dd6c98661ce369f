/** From rows of scores to words: the definition of edgetk/tasks/speech/detect.py, step by step.
 *
 * The mean of the last `window` rows, added up anew each step, goes through a sigmoid. The best class counts if it is watched
 * and reaches `threshold`; `hold` steps in a row must count for it; then it is detected, unless fewer than `refractory` steps
 * passed since the last detection. The unit of time is one step (10 ms).
 */

/** Settings as edgetk has them; `words` empty for all labels. */
export const RULE = Object.freeze({ window: 60, threshold: 0.95, hold: 5, refractory: 150, words: [] });

/** Sums over the stream, which are cleared before every step so that a row is the scores of one frame alone. */
export const CLEARED = "state_head_";

/** `probabilities` are those of the newest step; null before the window is full. */
export class Detector {
  /** Throws for settings that are none, and for a watched word that is no label. */
  constructor(rule, labels) {
    this.rule = { ...RULE, ...rule };
    check(this.rule, labels);
    const { words, window } = this.rule;
    this._watched = labels.map((label) => !words.length || words.includes(label));
    this._ring = Array.from({ length: window }, () => new Float64Array(labels.length));
    this._total = new Float64Array(labels.length);
    this.reset();
  }

  /** Start a new stream. */
  reset() {
    this.probabilities = null;
    this._rows = 0;
    this._last = Number.NEGATIVE_INFINITY;
    this._held = 0;
    this._seen = { step: -2, label: -1 };
  }

  /** One row of logits (K) -> {step, label, score}, or null where it completes no word. */
  push(logits) {
    const { window } = this.rule;
    const step = this._rows++;
    this._ring[step % window].set(logits);
    if (this._rows < window) return null;
    const total = this._total.fill(0);
    for (let age = window - 1; age >= 0; age--) {
      const row = this._ring[(step - age) % window];
      for (let k = 0; k < total.length; k++) total[k] += row[k];
    }
    this.probabilities = total.map((sum) => sigmoid(sum / window));
    const label = best(this.probabilities);
    return this._trigger(step, label, this.probabilities[label]);
  }

  _trigger(step, label, score) {
    const { threshold, hold, refractory } = this.rule;
    if (!this._watched[label] || score < threshold) return null;
    this._held = this._seen.step === step - 1 && this._seen.label === label ? this._held + 1 : 1;
    this._seen = { step, label };
    if (this._held < hold || step - this._last < refractory) return null;
    this._last = step;
    return { step, label, score };
  }
}

/** 1 / (1 + exp(-x)); logits beyond 700 either way are cut. */
export function sigmoid(x) {
  return 1 / (1 + Math.exp(-Math.min(Math.max(x, -700), 700)));
}

/** Place of the largest value, the first of equals. */
export function best(values) {
  let place = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[place]) place = i;
  return place;
}

function check(rule, labels) {
  for (const [name, least] of [
    ["window", 1],
    ["hold", 1],
    ["refractory", 0],
  ]) {
    if (!Number.isInteger(rule[name]) || rule[name] < least) {
      throw new Error(`detector: ${name} must be a whole number of at least ${least} steps, got ${rule[name]}; correct it`);
    }
  }
  if (!(rule.threshold > 0 && rule.threshold < 1)) {
    throw new Error(`detector: threshold must be a probability between 0 and 1, got ${rule.threshold}; 0.95 is one`);
  }
  for (const word of rule.words) {
    if (!labels.includes(word)) {
      throw new Error(`detector: a watched word must be a label of the model, got ${word}; known: ${labels.join(", ")}`);
    }
  }
}
