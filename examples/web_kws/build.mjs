/** The page in one folder that any web server can hand out: nothing in it comes from another host.
 *
 *     node build.mjs [--model lmuformer] [--out dist] [--assets FOLDER]
 *
 * Model and clips come from prepare.py, which needs Python with edgetk: EDGETK_PYTHON, else .venv of the repository, else
 * python3. With --assets they are taken from a folder that prepare.py has filled before.
 */

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const RUNTIME = join(HERE, "node_modules", "onnxruntime-web", "dist");
const VENDORED = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const PAGE = ["index.html", "style.css", "src", "NOTICE.txt"];
const ASSETS = ["model.stream.onnx", "clips"];

/** Model and clips, made by edgetk in a folder of their own. */
function prepare(folder, model) {
  const venv = join(HERE, "..", "..", ".venv", "bin", "python");
  const python = process.env.EDGETK_PYTHON ?? (existsSync(venv) ? venv : "python3");
  const { error, status } = spawnSync(python, [join(HERE, "prepare.py"), folder, model], { stdio: "inherit" });
  if (error) throw new Error(`Python must start, got ${error.message}; name one that has edgetk in EDGETK_PYTHON`);
  if (status !== 0) throw new Error("prepare.py must succeed, got an error above; run make setup, or set EDGETK_PYTHON");
}

/** Only an earlier page is replaced. */
function clear(folder) {
  if (existsSync(folder) && readdirSync(folder).length && !existsSync(join(folder, "vendor", VENDORED[0]))) {
    throw new Error(`--out must be a new folder or an earlier page, got ${folder}; choose another one`);
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "vendor"), { recursive: true });
}

function build({ model, out, assets }) {
  for (const name of VENDORED) {
    if (!existsSync(join(RUNTIME, name))) {
      throw new Error(`onnxruntime-web must be installed, got no ${name}; run npm ci in ${HERE} first`);
    }
  }
  const made = assets ?? mkdtempSync(join(tmpdir(), "web-kws-"));
  try {
    if (!assets) prepare(made, model);
    for (const name of ASSETS) {
      if (!existsSync(join(made, name))) throw new Error(`${made} must hold ${name}, got none; run prepare.py ${made}`);
    }
    clear(out);
    for (const name of ASSETS) cpSync(join(made, name), join(out, name), { recursive: true });
  } finally {
    if (!assets) rmSync(made, { recursive: true, force: true });
  }
  for (const name of PAGE) cpSync(join(HERE, name), join(out, name), { recursive: true });
  for (const name of VENDORED) cpSync(join(RUNTIME, name), join(out, "vendor", name));

  const files = readdirSync(out, { recursive: true }).filter((name) => statSync(join(out, name)).isFile());
  const bytes = files.reduce((sum, name) => sum + statSync(join(out, name)).size, 0);
  const folder = resolve(out);
  console.log(`${folder}: ${files.length} files, ${(bytes / 1e6).toFixed(1)} MB. Serve it, and open http://localhost:8000/`);
  console.log(`  python3 -m http.server -b 127.0.0.1 -d ${folder} 8000`);
}

try {
  const { values } = parseArgs({
    options: {
      model: { type: "string", default: "lmuformer" },
      out: { type: "string", default: join(HERE, "dist") },
      assets: { type: "string" },
    },
  });
  build(values);
} catch (error) {
  console.error(`web_kws: ${error.message}`);
  process.exitCode = 2;
}
