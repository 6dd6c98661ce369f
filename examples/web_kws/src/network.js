/** A step graph in ONNX Runtime: one frame in, the scores of one frame out, states fed back. */

import { CLEARED } from "./detect.js";
import { describe } from "./metadata.js";

/** `step` runs one frame; `model` is what the graph says about itself. */
export class Network {
  /** `runtime` is the module onnxruntime-web, `bytes` (Uint8Array) the file. Throws where either is not what is needed. */
  static async open(runtime, bytes) {
    const model = describe(bytes);
    const session = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Network(runtime, session, model);
  }

  constructor(runtime, session, model) {
    this._Tensor = runtime.Tensor;
    this._session = session;
    this.model = model;
    this._shape = [1, 1, model.frontEnd.n_mels];
    this._start = Object.fromEntries(model.states.map((state) => [state.name, this._initial(state)]));
    this._cleared = Object.fromEntries(Object.entries(this._start).filter(([name]) => name.startsWith(CLEARED)));
    this.reset();
  }

  /** Start a new stream. */
  reset() {
    this._states = { ...this._start };
  }

  /** Features of one frame (Float32Array) -> its logits (Float32Array), `model.lookahead` frames late. */
  async step(frame) {
    const input = new this._Tensor("float32", frame, this._shape);
    const outputs = await this._session.run({ ...this._states, ...this._cleared, [this.model.input]: input });
    for (const { name, output } of this.model.states) this._states[name] = outputs[output];
    return outputs[this.model.output].data;
  }

  _initial({ name, dtype, shape, init }) {
    if (dtype !== "float32") {
      throw new Error(`model: states must be float32, got ${dtype} in ${name}; export the model without integer states`);
    }
    const size = shape.reduce((product, length) => product * length, 1);
    return new this._Tensor("float32", init.length ? Float32Array.from(init) : new Float32Array(size), shape);
  }
}
