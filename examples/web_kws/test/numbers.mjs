/** The page's arithmetic without a page: a JSON list of [name, arguments] on stdin, a list of results on stdout.
 *
 * What throws gives {error: message}. "listen" runs ONNX Runtime in Node, and needs npm ci.
 */

import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { Detector, RULE } from "../src/detect.js";
import { Listener } from "../src/listener.js";
import { LogMel } from "../src/log_mel.js";
import { describe } from "../src/metadata.js";
import { Network } from "../src/network.js";
import { plain, refused, slow } from "../src/problems.js";
import { Resampler } from "../src/resample.js";

const functions = {
  rule: () => RULE,
  describe: ({ file }) => describe(new Uint8Array(readFileSync(file))),
  plain: ({ error }) => plain(error),
  refused: ({ message }) => refused(message),
  slow: ({ seconds }) => slow(seconds),

  /** Frames of each sound, which comes in pieces; the front end is reset in between. */
  logMel({ settings, sounds }) {
    const frontEnd = new LogMel(settings);
    return sounds.map((pieces) => {
      frontEnd.reset();
      return pieces.flatMap((piece) => frontEnd.push(Float32Array.from(piece)).map((frame) => [...frame]));
    });
  },

  resample({ from, to, pieces }) {
    const resampler = new Resampler(from, to);
    const samples = pieces.flatMap((piece) => [...resampler.push(Float32Array.from(piece))]);
    return { samples, delay_s: resampler.delay_s };
  },

  detect({ rule, labels, rows }) {
    const detector = new Detector(rule, labels);
    const found = rows.map((row) => detector.push(Float32Array.from(row))).filter(Boolean);
    return { found, probabilities: detector.probabilities && [...detector.probabilities] };
  },

  /** Each sound from a fresh start: words, the last probabilities, seconds heard. */
  async listen({ file, rule, sounds }) {
    const runtime = await import("onnxruntime-web");
    runtime.env.wasm.numThreads = 1;
    const listener = new Listener(await Network.open(runtime, new Uint8Array(readFileSync(file))), rule);
    const heard = [];
    for (const { rate, pieces } of sounds) {
      listener.start(rate);
      const words = [];
      for (const piece of pieces) words.push(...(await listener.push(Float32Array.from(piece))).words);
      heard.push({ words, probabilities: [...listener.probabilities], sound_s: listener.sound_s });
    }
    return heard;
  },
};

const results = [];
for (const [name, settings] of JSON.parse(await text(process.stdin))) {
  try {
    results.push(await functions[name](settings));
  } catch (error) {
    results.push({ error: error.message });
  }
}
process.stdout.write(JSON.stringify(results));
