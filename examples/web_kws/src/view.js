/** What the page shows: bars of the scores, the trace of the sound, the words that were heard. */

/** Seconds that the trace shows, and its places in that time. */
const SPAN_S = 8;
const PLACES = 160;
/** Words that the list keeps. */
const KEPT = 50;

const $ = (id) => document.getElementById(id);

/** Bars of all labels; `threshold` is where a word begins to count. */
export class Scores {
  constructor(labels, threshold) {
    this._bars = labels.map((label) => {
      const row = document.createElement("li");
      const [name, track, bar, value] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
      name.textContent = label;
      track.className = "track";
      bar.className = "bar";
      value.className = "value";
      track.append(bar);
      row.append(name, track, value);
      return { row, bar, value };
    });
    $("scores").replaceChildren(...this._bars.map(({ row }) => row));
    this.mark(threshold);
    this.show(null);
  }

  mark(threshold) {
    this._threshold = threshold;
    $("scores").style.setProperty("--threshold", `${100 * threshold}%`);
  }

  /** Probabilities in the order of the labels; null where there are none yet. */
  show(probabilities) {
    this._bars.forEach(({ row, bar, value }, i) => {
      const p = probabilities ? probabilities[i] : 0;
      bar.style.transform = `scaleX(${p.toFixed(4)})`;
      value.textContent = probabilities ? p.toFixed(2) : "–";
      row.classList.toggle("counts", p >= this._threshold);
    });
  }
}

/** The loudness of the last seconds, drawn from right to left, with a flag for each word. */
export class Trace {
  constructor() {
    this._canvas = $("trace");
    this.reset();
    new ResizeObserver(() => this.draw()).observe(this._canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  reset() {
    this._levels = new Float32Array(PLACES);
    this._words = [];
    this._now = 0;
  }

  /** Samples that begin at second `from` of the sound. */
  add(samples, from, rate) {
    const step = SPAN_S / PLACES;
    const last = Math.floor(this._now / step);
    this._now = from + samples.length / rate;
    for (let place = last + 1; place <= Math.floor(this._now / step); place++) this._levels[place % PLACES] = 0;
    for (let i = 0; i < samples.length; i++) {
      const place = Math.floor((from + i / rate) / step) % PLACES;
      this._levels[place] = Math.max(this._levels[place], Math.abs(samples[i]));
    }
  }

  word(time_s, word) {
    this._words = [...this._words.filter((flag) => flag.time_s > this._now - SPAN_S), { time_s, word }];
  }

  draw() {
    const canvas = this._canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.scale(ratio, ratio);
    const [top, room] = [22, height - 22];
    const step = SPAN_S / PLACES;
    const newest = Math.floor(this._now / step);
    pen.fillStyle = style.getPropertyValue("--wave");
    for (let age = 0; age < PLACES; age++) {
      const place = newest - age;
      const level = place < 0 ? 0 : loudness(this._levels[place % PLACES]);
      const tall = Math.max(2, level * room);
      pen.fillRect(width - ((age + 1) * width) / PLACES, top + (room - tall) / 2, Math.max(1, (0.6 * width) / PLACES), tall);
    }
    pen.font = `600 13px ${style.fontFamily}`;
    pen.textBaseline = "top";
    pen.fillStyle = style.getPropertyValue("--accent");
    for (const { time_s, word } of this._words) {
      const x = width * (1 - (this._now - time_s) / SPAN_S);
      if (x < 0) continue;
      pen.fillRect(x - 1, 0, 2, height);
      const wide = pen.measureText(word).width;
      pen.fillText(word, x + 6 + wide > width ? x - 6 - wide : x + 6, 1);
    }
  }
}

/** −60 dB to full scale as 0 to 1. */
function loudness(peak) {
  return Math.min(1, Math.max(0, 1 + (20 * Math.log10(Math.max(peak, 1e-9))) / 60));
}

/** The newest word, large, and the list of all. */
export function heard({ word, score, time_s }) {
  const detail = `${time_s.toFixed(2)} s, probability ${score.toFixed(3)}`;
  $("word").textContent = word;
  $("word").classList.add("counts");
  $("detail").textContent = detail;
  const item = document.createElement("li");
  const [name, rest] = [document.createElement("strong"), document.createElement("span")];
  name.textContent = word;
  rest.textContent = detail;
  item.append(name, " ", rest);
  const list = $("heard");
  list.prepend(item);
  while (list.children.length > KEPT) list.lastChild.remove();
  $("empty").hidden = true;
}

/** A new sound begins: nothing was heard of it. */
export function forget() {
  $("word").textContent = "–";
  $("word").classList.remove("counts");
  $("detail").textContent = "No word yet";
}

/** Latency in its parts; `heard` is the newest message of the listener. */
export function figures({ lookahead_s, frontEnd, rule, period }, message) {
  const ms = (seconds) => `${Math.round(seconds * 1000)} ms`;
  $("lookahead").textContent = `${ms(lookahead_s)} + ${ms(frontEnd.window_samples / frontEnd.sample_rate)}`;
  $("smoothing").textContent = `mean of ${ms(rule.window * period)}`;
  if (!message?.step_s) return;
  $("step").textContent = `${(message.step_s * 1000).toFixed(2)} ms (median)`;
  $("load").textContent = `${(message.busy_s / message.all_s).toFixed(2)} s per second of sound`;
}
