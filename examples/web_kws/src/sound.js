/** Sound for the listener: the microphone, or clips one after the other. Both pass the same tap in the audio thread. */

/** Silence before and after a clip, in seconds: the mean of 600 ms must see the word whole. */
const BEFORE_S = 0.5;
const AFTER_S = 0.8;

/** What a browser does to a voice for a telephone call is not what the model was trained on. */
const AS_IT_IS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** `to(port, rate)` is called for each new sound with the port its blocks come from. */
export class Sound {
  constructor(to) {
    this._to = to;
    this._context = null;
    this._end = null; // ends what sounds now
    this._turn = 0; // grows with every stop, which may come while a start still waits
  }

  /** The device's sample rate, once something has sounded. */
  get rate() {
    return this._context?.sampleRate;
  }

  /** Listen until `stop`, or until the microphone goes, which `lost` is called for. */
  async microphone(lost) {
    this.stop();
    if (!navigator.mediaDevices?.getUserMedia) throw Object.assign(new Error("no media devices"), { code: "insecure" });
    const turn = this._turn;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: AS_IT_IS });
    const track = stream.getAudioTracks()[0];
    try {
      await this._wake();
      if (turn !== this._turn) return track.stop();
      const tap = this._tap();
      const source = new MediaStreamAudioSourceNode(this._context, { mediaStream: stream });
      source.connect(tap);
      track.addEventListener("ended", lost);
      this._end = () => {
        source.disconnect();
        track.removeEventListener("ended", lost);
        track.stop();
      };
    } catch (error) {
      track.stop();
      throw error;
    }
  }

  /** Play files one after the other, as one stream. True when the last one is over, false where `stop` came first. */
  async clips(urls) {
    this.stop();
    const turn = this._turn;
    await this._wake();
    const buffers = await Promise.all(urls.map((url) => this._decoded(url)));
    if (turn !== this._turn) return false;
    const tap = this._tap();
    const context = this._context;
    const { promise, resolve } = Promise.withResolvers?.() ?? deferred();
    const sources = [];
    let at = context.currentTime;
    for (const buffer of buffers) {
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(tap);
      source.connect(context.destination);
      source.start(at + BEFORE_S);
      at += BEFORE_S + buffer.duration + AFTER_S;
      sources.push(source);
    }
    // a constant of zero, whose end is the end of the silence after the last clip
    const clock = new ConstantSourceNode(context, { offset: 0 });
    clock.connect(tap);
    clock.onended = () => resolve(true);
    clock.start();
    clock.stop(at);
    this._end = () => {
      for (const source of [...sources, clock]) {
        source.onended = null;
        source.disconnect();
      }
      resolve(false);
    };
    return promise;
  }

  /** End what sounds now. */
  stop() {
    this._turn++;
    this._end?.();
    this._end = null;
    this._node?.port.postMessage({ port: null });
    this._node?.disconnect();
    this._node = null;
    this._context?.suspend();
  }

  /** The device, ready to sound. Browsers let that begin after a key or a click only. */
  async _wake() {
    if (typeof AudioWorkletNode !== "function") throw Object.assign(new Error("no AudioWorklet"), { code: "no-audio" });
    if (!this._context) {
      const context = new AudioContext({ latencyHint: "interactive" });
      await context.audioWorklet.addModule(new URL("tap.js", import.meta.url));
      this._context = context;
    }
    await this._context.resume();
  }

  /** A tap whose blocks go to the listener, where a new stream begins. */
  _tap() {
    const node = new AudioWorkletNode(this._context, "tap", { numberOfInputs: 1, numberOfOutputs: 1, channelCount: 1 });
    node.connect(this._context.destination); // it is silent; without a way out some browsers do not run it
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ port: port1 }, [port1]);
    this._to(port2, Math.round(this._context.sampleRate));
    this._node = node;
    return node;
  }

  async _decoded(url) {
    const answer = await fetch(url).catch(() => null);
    if (!answer?.ok) throw Object.assign(new Error(`clip ${url}`), { code: "no-clip" });
    return this._context.decodeAudioData(await answer.arrayBuffer());
  }
}

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve) => {
    parts.resolve = resolve;
  });
  return parts;
}
