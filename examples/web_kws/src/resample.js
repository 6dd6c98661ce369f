/** A device's sample rate to the model's while the sound arrives: a windowed-sinc filter, evaluated only where it is needed.
 *
 * Output n lies at the time of input sample n · from / to. from / to is a ratio of small whole numbers for the rates of audio
 * devices, so the filter is a table with one row for each place between two input samples. Down to a lower rate it keeps what
 * both rates can carry; up to a higher one it adds nothing: an 8 kHz headset stays without sound above 4 kHz.
 */

/** Zero crossings of the sinc on each side of its middle, and the share of the lower Nyquist frequency that passes. */
const CROSSINGS = 24;
const PASS = 0.94;

/** `push` samples at `from` Hz, get those at `to` Hz that they complete; the delay is `delay_s` seconds. */
export class Resampler {
  constructor(from, to) {
    if (!(Number.isInteger(from) && from >= 4000 && from <= 768000)) {
      throw new Error(`sound: must have between 4000 and 768000 samples a second, got ${from}; choose another microphone`);
    }
    const shared = divisor(from, to);
    this._up = to / shared;
    this._down = from / shared;
    this._same = from === to;
    const cutoff = (PASS * Math.min(from, to)) / from; // of the input's Nyquist frequency
    this._half = Math.ceil(CROSSINGS / cutoff);
    this._table = this._same ? [] : Array.from({ length: this._up }, (_, i) => taps(i / this._up, this._half, cutoff));
    this.delay_s = this._same ? 0 : this._half / from;
    this.reset();
  }

  /** Forget what was heard. Before the first sample there is silence. */
  reset() {
    this._past = new Float32Array(2 * this._half);
    this._next = 0; // place of the next output, in 1/up of an input sample, from the first new input on
  }

  /** samples (Float32Array) -> Float32Array. */
  push(samples) {
    if (this._same) return samples;
    const held = new Float32Array(this._past.length + samples.length);
    held.set(this._past);
    held.set(samples, this._past.length);
    const end = samples.length * this._up;
    const output = new Float32Array(Math.max(0, Math.ceil((end - this._next) / this._down)));
    for (let n = 0; n < output.length; n++, this._next += this._down) {
      const first = Math.floor(this._next / this._up) + 1;
      const weights = this._table[this._next % this._up];
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * held[first + i];
      output[n] = sum;
    }
    this._next -= end;
    this._past = held.slice(samples.length);
    return output;
  }
}

/** Weights of 2 · half samples for a place `shift` (0 to 1) after the one before the middle; their sum is 1. */
function taps(shift, half, cutoff) {
  const weights = Float64Array.from({ length: 2 * half }, (_, i) => {
    const x = i - (half - 1) - shift;
    const fade = Math.cos((Math.PI * x) / (2 * half)) ** 2;
    return sinc(cutoff * x) * fade;
  });
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}
