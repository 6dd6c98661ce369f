/** What can go wrong, in words for the person in front of the page. */

const TEXTS = {
  NotAllowedError:
    "The microphone was not allowed. Allow it for this page beside the browser's address, then try again. " +
    "The clips need no microphone.",
  NotFoundError: "No microphone was found. Connect one and try again, or play the clips.",
  NotReadableError: "The microphone cannot be read: another program may be using it, or it is switched off.",
  insecure:
    "Browsers give the microphone only to pages from https:// or from this computer (http://localhost). " +
    "Open the page that way, or play the clips.",
  "no-audio": "This browser cannot pass sound to a page (it has no AudioWorklet). A current browser can.",
  "no-wasm":
    "The network could not be started: this browser blocks WebAssembly, or files in vendor/ are missing. " +
    "Try a current browser; if that does not help, build the page again: make web",
  "no-model": "The model could not be loaded: model.stream.onnx is missing. Build the page again: make web",
  "no-clip": "A clip could not be loaded. Build the page again: make web",
  lost: "The microphone was disconnected. Connect it and start again.",
};

/** An error, or a message of the worker, as one or two sentences. */
export function plain(error) {
  return TEXTS[error.code] ?? TEXTS[error.name] ?? `Something went wrong: ${error.message}.`;
}

/** Settings that the detector refused, with its reason. */
export function refused(message) {
  const reason = message.replace(/^detector: /, "");
  return `${reason[0].toUpperCase()}${reason.slice(1)}.`;
}

/** Said while a device computes more slowly than the sound arrives. */
export function slow(behind_s) {
  return `This device is ${behind_s.toFixed(1)} s behind the sound. Close other programs, or listen again.`;
}
