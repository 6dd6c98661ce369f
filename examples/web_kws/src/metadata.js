/** What an exported graph says about itself: ONNX `metadata_props`, read from the file's bytes.
 *
 * ONNX Runtime does not hand them out in a browser. A graph is a protocol buffer, and only three of its field numbers are
 * needed: ModelProto.metadata_props (14), StringStringEntryProto.key (1) and .value (2).
 */

const PROPERTIES = 14;
const KEY = 1;
const VALUE = 2;
/** Keys that a stream of speech cannot do without. */
const REQUIRED = ["states", "labels", "front_end", "lookahead_s", "period_s"];

/** The metadata of a graph: bytes (Uint8Array) -> {key: text}. Throws where the bytes are no protocol buffer. */
export function read(bytes) {
  const found = {};
  for (const [number, content] of fields(bytes)) {
    if (number !== PROPERTIES) continue;
    const entry = Object.fromEntries(fields(content));
    found[text(entry[KEY])] = text(entry[VALUE]);
  }
  return found;
}

/** The metadata of a stream, with types. Throws where the graph is no stream of a model that edgetk exported. */
export function describe(bytes) {
  const entries = read(bytes);
  const missing = REQUIRED.filter((key) => !(key in entries));
  if (missing.length) {
    throw new Error(
      `model: must be a stream that edgetk exported, got one without ${missing.join(", ")}; ` +
        "export it: edgetk export MODEL -o FOLDER",
    );
  }
  const frontEnd = JSON.parse(entries.front_end);
  const period = Number(entries.period_s);
  return {
    name: entries.model_type,
    precision: entries.quantization,
    labels: entries.labels.split("\n"),
    states: JSON.parse(entries.states),
    input: entries.inputs.split(" ")[0],
    output: entries.outputs.split(" ")[0],
    frontEnd,
    period,
    lookahead: Math.round(Number(entries.lookahead_s) / period),
  };
}

/** The length-delimited fields of one message, as [number, bytes]; others are passed over. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      if (at >= bytes.length) throw new Error("model: must be an ONNX file, got bytes that end too early; export it again");
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key & 7;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) {
        throw new Error("model: must be an ONNX file, got bytes that end too early; export it again");
      }
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error(`model: must be an ONNX file, got a field of kind ${kind}; export it again`);
  }
}

function text(bytes) {
  return bytes ? new TextDecoder().decode(bytes) : "";
}
