/** Samples to normalised log-mel frames while they arrive: the definition of edgetk/tasks/speech/log_mel.py.
 *
 * Kaldi's filter banks with the settings of LMUFormer, which the graph's metadata hold. Frames are 25 ms, one every 10 ms.
 */

/** `push` samples, get the frames that they complete. */
export class LogMel {
  /** `settings` is the entry `front_end` of the metadata. */
  constructor(settings) {
    if (settings.kind !== "kaldi-log-mel") {
      throw new Error(`front end: must be kaldi-log-mel, got ${settings.kind}; this page knows no other`);
    }
    this.settings = settings;
    const { window_samples: length, n_fft: size } = settings;
    this._window = Float64Array.from({ length }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (length - 1)));
    this._bands = triangles(settings);
    this._fft = new Fft(size);
    this._real = new Float64Array(size);
    this._imaginary = new Float64Array(size);
    this._power = new Float64Array(size / 2 + 1);
    this._rest = new Float32Array(length);
    this.reset();
  }

  /** Forget what was heard: the next sample starts a new stream. */
  reset() {
    this._held = 0;
  }

  /** samples (Float32Array, any length, in [-1, 1]) -> completed frames, each a Float32Array (n_mels). */
  push(samples) {
    const { window_samples: length, hop_samples: hop } = this.settings;
    const frames = [];
    let at = 0;
    while (at < samples.length) {
      const taken = Math.min(length - this._held, samples.length - at);
      this._rest.set(samples.subarray(at, at + taken), this._held);
      this._held += taken;
      at += taken;
      if (this._held === length) {
        frames.push(this._frame());
        this._rest.copyWithin(0, hop);
        this._held -= hop;
      }
    }
    return frames;
  }

  _frame() {
    const { window_samples: length, preemphasis, log_floor: floor, mean, std_times_2: scale, n_mels: bands } = this.settings;
    const [real, imaginary, power] = [this._real, this._imaginary, this._power];
    let offset = 0;
    for (let i = 0; i < length; i++) offset += this._rest[i];
    offset /= length;
    real.fill(0);
    imaginary.fill(0);
    let before = this._rest[0] - offset; // the first sample of a frame stands in for the one before it
    for (let i = 0; i < length; i++) {
      const now = this._rest[i] - offset;
      real[i] = (now - preemphasis * before) * this._window[i];
      before = now;
    }
    this._fft.run(real, imaginary);
    for (let i = 0; i < power.length; i++) power[i] = real[i] * real[i] + imaginary[i] * imaginary[i];
    const frame = new Float32Array(bands);
    this._bands.forEach(({ first, weights }, band) => {
      let energy = 0;
      for (let i = 0; i < weights.length; i++) energy += weights[i] * power[first + i];
      frame[band] = (Math.log(Math.max(energy, floor)) - mean) / scale;
    });
    return frame;
  }
}

/** Kaldi's triangles on the mel scale: for each band its first FFT bin and the weights from there on, none for a band
 * that is narrower than the distance between bins. The Nyquist bin has no weight. */
function triangles({ n_mels: bands, n_fft: size, sample_rate: rate, low_hz: low, high_hz: high }) {
  const mel = (hz) => 1127 * Math.log1p(hz / 700);
  const step = (mel(high) - mel(low)) / (bands + 1);
  return Array.from({ length: bands }, (_, band) => {
    const left = mel(low) + band * step;
    const weights = [];
    let first = 0;
    for (let bin = 0; bin < size / 2; bin++) {
      const at = mel((bin * rate) / size);
      const weight = Math.min(at - left, left + 2 * step - at) / step;
      if (weight <= 0) continue;
      if (!weights.length) first = bin;
      weights.push(weight);
    }
    return { first, weights };
  });
}

/** In-place radix-2 transform of a fixed size (a power of two). */
class Fft {
  constructor(size) {
    this._size = size;
    this._cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this._sin = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
    const bits = Math.log2(size);
    this._place = Uint32Array.from({ length: size }, (_, i) => {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit++) reversed = (reversed << 1) | ((i >> bit) & 1);
      return reversed;
    });
  }

  run(real, imaginary) {
    const size = this._size;
    for (let i = 0; i < size; i++) {
      const j = this._place[i];
      if (j <= i) continue;
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const [cos, sin] = [this._cos[k * stride], this._sin[k * stride]];
          const [a, b] = [start + k, start + k + half];
          const re = real[b] * cos - imaginary[b] * sin;
          const im = real[b] * sin + imaginary[b] * cos;
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
  }
}
