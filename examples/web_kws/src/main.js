/** The page: buttons, settings, and what the worker says. `app` tells others (a test) what is heard, as events. */

import { plain, refused, slow } from "./problems.js";
import { Sound } from "./sound.js";
import { figures, forget, heard, Scores, Trace } from "./view.js";

const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const sound = new Sound((port, rate) => worker.postMessage({ kind: "start", port, rate }, [port]));
const trace = new Trace();
/** From this backlog on the page says that the device is too slow, in seconds. */
const SLOW_S = 1;

/** Events "ready", "heard", "word", "rule", "refused", "stopped", "failed"; `detail` is the worker's message. */
export const app = new EventTarget();

let model = null; // what the worker said of it, with the rule in force
let scores = null;
let newest = null;
let before_s = 0; // sound of earlier streams
let played = 0; // counts starts and ends, so that what comes late is told from what is wanted
let behind = false; // whether the page says that the device is too slow
let drawing = false;
let begunWith = null; // the button that began what sounds

const handlers = {
  ready(message) {
    model = message;
    $("model").textContent = `${message.name}, ${message.precision}, knows ${message.labels.length} words and`;
    scores = new Scores(message.labels, message.rule.threshold);
    rule(message.rule);
    say("Ready.");
    busy(false);
  },

  heard(message) {
    trace.add(
      message.samples,
      message.sound_s - message.samples.length / model.frontEnd.sample_rate,
      model.frontEnd.sample_rate,
    );
    newest = { ...message, all_s: before_s + message.sound_s };
    draw();
    if (message.behind_s > SLOW_S) problem(slow(message.behind_s));
    else if (behind) problem("");
    behind = message.behind_s > SLOW_S;
  },

  word(message) {
    trace.word(message.time_s, message.word);
    heard(message);
  },

  rule(message) {
    rule(message.rule);
    problem("");
  },

  stopped() {
    before_s = newest?.all_s ?? 0;
    busy(false);
  },

  refused(message) {
    problem(refused(message.message));
  },

  failed(message) {
    played++;
    sound.stop();
    problem(plain(message));
    say(model ? "Stopped." : "The model is not there.");
    busy(false);
  },
};

worker.onmessage = ({ data }) => {
  handlers[data.kind](data);
  app.dispatchEvent(new CustomEvent(data.kind, { detail: data }));
};
worker.onerror = () => handlers.failed({ code: "no-wasm" });
worker.postMessage({ kind: "open", model: new URL("../model.stream.onnx", import.meta.url).href, rule: {} });

function say(text) {
  $("status").textContent = text;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** While something sounds only Stop can be pressed; the focus goes there and back. */
function busy(on) {
  const focused = document.activeElement;
  for (const button of document.querySelectorAll("#microphone, #play, #clips button")) button.disabled = on || !model;
  $("stop").disabled = !on;
  if (on && focused?.disabled) {
    $("stop").focus();
    begunWith = focused;
  } else if (!on && focused === $("stop")) begunWith?.focus();
  document.body.classList.toggle("listening", on);
}

function rule(now) {
  model.rule = now;
  scores.mark(now.threshold);
  for (const name of ["threshold", "window", "hold", "refractory"]) $("rule").elements[name].value = now[name];
  $("rule").elements.words.value = now.words.join(", ");
  figures(model, newest);
}

/** Begin something that sounds; `start` is told how to ask whether it is still wanted. */
async function begin(start) {
  const mine = ++played;
  problem("");
  forget();
  trace.reset();
  newest = newest && { ...newest, probabilities: null };
  draw();
  busy(true);
  try {
    await start(() => mine === played);
  } catch (error) {
    if (mine !== played) return;
    problem(plain(error));
    finish("Stopped.");
  }
}

/** `whole` where the sound came to its own end, so that all of it is to be heard. */
function finish(text, whole = false) {
  played++;
  sound.stop();
  say(text);
  worker.postMessage({ kind: "stop", whole });
}

$("microphone").addEventListener("click", () =>
  begin(async (wanted) => {
    say("Waiting for the microphone …");
    await sound.microphone(() => {
      problem(plain({ code: "lost" }));
      finish("Stopped.");
    });
    if (wanted()) say(`Listening to the microphone at ${sound.rate / 1000} kHz.`);
  }),
);
$("stop").addEventListener("click", () => finish("Stopped."));

function play(clips, name) {
  return begin(async (wanted) => {
    say(`Playing ${name}.`);
    const whole = await sound.clips(clips.map(({ file }) => new URL(`../clips/${file}`, import.meta.url).href));
    if (whole && wanted()) finish(`Played ${name}.`, true);
  });
}

$("rule").addEventListener("submit", (event) => event.preventDefault());
$("rule").addEventListener("change", () => {
  const fields = $("rule").elements;
  if (!$("rule").reportValidity()) return;
  const numbers = ["threshold", "window", "hold", "refractory"].map((name) => [name, Number(fields[name].value)]);
  const words = fields.words.value.split(/[\s,]+/).filter(Boolean);
  worker.postMessage({ kind: "rule", rule: { ...Object.fromEntries(numbers), words } });
});

async function listClips() {
  const answer = await fetch(new URL("../clips/clips.json", import.meta.url)).catch(() => null);
  if (!answer?.ok) return problem(plain({ code: "no-clip" }));
  const clips = await answer.json();
  const buttons = clips.map((clip) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = clip.word;
    button.disabled = !model;
    button.addEventListener("click", () => play([clip], `“${clip.word}”`));
    return button;
  });
  $("clips").replaceChildren(...buttons);
  $("play").textContent = `Play all ${clips.length} clips`;
  $("play").addEventListener("click", () => play(clips, `${clips.length} clips`));
}

/** With the next picture of the screen, once. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    trace.draw();
    scores?.show(newest?.probabilities ?? null);
    if (newest) figures(model, newest);
  });
}

listClips();
