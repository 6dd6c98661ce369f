/** In the audio thread: the first channel of what passes, as blocks of 10 ms or a little more, to the port it was given. */

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this._block = new Float32Array(Math.ceil(sampleRate / 100 / 128) * 128);
    this._filled = 0;
    this._to = null;
    this._open = true;
    this.port.onmessage = ({ data }) => {
      this._to = data.port ?? null;
      this._open = Boolean(data.port);
    };
  }

  process([input]) {
    if (this._to) {
      // a source that has not begun, or is over, has no channels: it is silent
      if (input.length) this._block.set(input[0], this._filled);
      else this._block.fill(0, this._filled, this._filled + 128);
      this._filled += 128;
      if (this._filled === this._block.length) {
        this._to.postMessage(this._block.slice());
        this._filled = 0;
      }
    }
    return this._open;
  }
}

registerProcessor("tap", Tap);
