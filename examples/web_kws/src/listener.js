/** From the samples of a device to words: sample rate, front end, network, detector; and how long the network takes. */

import { Detector } from "./detect.js";
import { LogMel } from "./log_mel.js";
import { Resampler } from "./resample.js";

/** Durations that the median is taken of. */
const TIMED = 500;

/** One stream of sound. */
export class Listener {
  constructor(network, rule = {}) {
    this._network = network;
    this._frontEnd = new LogMel(network.model.frontEnd);
    this._times = [];
    this.busy_s = 0;
    this.use(rule);
    this.start(network.model.frontEnd.sample_rate);
  }

  /** Other settings of the detector; it begins anew. Throws where they are no settings. */
  use(rule) {
    this._detector = new Detector(rule, this._network.model.labels);
    this.rule = this._detector.rule;
    this._origin = this._rows ?? 0;
  }

  /** A new sound of `rate` samples a second; the timings go on. */
  start(rate) {
    this._resampler = new Resampler(rate, this._network.model.frontEnd.sample_rate);
    this._frontEnd.reset();
    this._network.reset();
    this._detector.reset();
    this._steps = this._rows = this._origin = 0;
    this.sound_s = 0;
    this.level = 0;
    return this;
  }

  /** Probabilities of the newest step (Float64Array), null while too little was heard. */
  get probabilities() {
    return this._detector.probabilities;
  }

  /** Median time of one step of the network in seconds, of the last TIMED; 0 before the first. */
  get step_s() {
    const sorted = [...this._times].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : 0;
  }

  /** samples (Float32Array) at the device's rate -> {samples, words}: those at the model's rate, and what they complete. */
  async push(input) {
    const { frontEnd, labels, lookahead, period } = this._network.model;
    const samples = this._resampler.push(input);
    const words = [];
    const began = performance.now();
    if (!samples.every(Number.isFinite)) {
      throw new Error(
        `sound: samples must be finite, got NaN or infinity after ${this.sound_s.toFixed(1)} s; check the source`,
      );
    }
    this.sound_s += samples.length / frontEnd.sample_rate;
    this._hear(samples);
    for (const frame of this._frontEnd.push(samples)) {
      const start = performance.now();
      const row = await this._network.step(frame);
      this._times[this._steps % TIMED] = (performance.now() - start) / 1000;
      if (this._steps++ < lookahead) continue; // the first rows belong to no frame
      this._rows++;
      const hit = this._detector.push(row);
      if (!hit) continue;
      const step = hit.step + this._origin;
      const time_s = (step + lookahead) * period + frontEnd.window_samples / frontEnd.sample_rate;
      words.push({ step, time_s, word: labels[hit.label], score: hit.score });
    }
    this.busy_s += (performance.now() - began) / 1000;
    return { samples, words };
  }

  /** The level is the root mean square of about the last 100 ms. */
  _hear(samples) {
    if (!samples.length) return;
    const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
    const share = Math.min(1, samples.length / (0.1 * this._network.model.frontEnd.sample_rate));
    this.level = Math.sqrt((1 - share) * this.level ** 2 + share * power);
  }
}
