/** Listens in a thread of its own. Messages in: open, start, rule, stop. Out: ready, heard, word, rule, refused, stopped, failed.
 *
 * Sound arrives through a port of its own, straight from the audio thread, so that a busy page holds nothing up.
 */

import * as runtime from "../vendor/ort.wasm.min.mjs";
import { Listener } from "./listener.js";
import { Network } from "./network.js";

let listener = null;
/** What is being heard: its port, its sample rate, and how many samples have arrived and were not heard yet. */
let source = null;
let queue = Promise.resolve();

const handlers = {
  async open({ model, rule }) {
    runtime.env.wasm.wasmPaths = new URL("../vendor/", import.meta.url).href;
    runtime.env.wasm.numThreads = 1;
    if (typeof WebAssembly !== "object") throw new Problem("no-wasm");
    const answer = await fetch(model).catch(() => null);
    if (!answer?.ok) throw new Problem("no-model");
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const network = await Network.open(runtime, bytes).catch((error) => {
      throw /wasm|backend/i.test(error.message) ? new Problem("no-wasm", error.message) : error;
    });
    listener = new Listener(network, rule);
    const { name, precision, labels, lookahead, period, frontEnd } = network.model;
    postMessage({
      kind: "ready",
      name,
      precision,
      labels,
      lookahead_s: lookahead * period,
      period,
      frontEnd,
      rule: listener.rule,
    });
  },

  async start({ port, rate }) {
    close();
    await queue;
    listener.start(rate);
    const now = { port, rate, waiting: 0 };
    source = now;
    port.onmessage = ({ data }) => {
      now.waiting += data.length;
      queue = queue.then(() => (source === now ? hear(data) : undefined)).catch(fail);
    };
  },

  async rule({ rule }) {
    await queue;
    try {
      listener.use(rule);
    } catch ({ message }) {
      postMessage({ kind: "refused", message });
      return;
    }
    postMessage({ kind: "rule", rule: listener.rule });
  },

  /** What has arrived is still heard where `whole`, else dropped. */
  async stop({ whole }) {
    if (whole) await queue;
    close();
    await queue;
    postMessage({ kind: "stopped" });
  },
};

/** What went wrong, as a code that the page has words for. */
class Problem extends Error {
  constructor(code, message = code) {
    super(message);
    this.code = code;
  }
}

async function hear(block) {
  const now = source;
  const { samples, words } = await listener.push(block);
  now.waiting -= block.length;
  for (const word of words) postMessage({ kind: "word", ...word });
  const { level, probabilities, sound_s, step_s, busy_s } = listener;
  const behind_s = now.waiting / now.rate;
  postMessage({ kind: "heard", samples, level, probabilities, sound_s, step_s, busy_s, behind_s });
}

function close() {
  source?.port.close();
  source = null;
}

function fail(error) {
  close();
  postMessage({ kind: "failed", code: error.code ?? "other", message: error.message });
}

// One message after the other: a stream must not start while the model is still loading.
let turn = Promise.resolve();
self.onmessage = ({ data }) => {
  turn = turn.then(() => handlers[data.kind](data)).catch(fail);
};
