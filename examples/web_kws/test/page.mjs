/** Drives the built page in Chromium and prints what happened as JSON: node test/page.mjs SCENARIO URL [FILE].
 *
 * CHROMIUM names the browser. Every request to another host is refused and counted.
 */

import { chromium } from "playwright-core";

/** Scenarios get the open page and give what is printed. */
const SCENARIOS = {
  /** Plays the clips of the words in argv[4], each as a sound of its own; then, how much is too wide for a phone. */
  async clips(page, words) {
    const sounds = [];
    for (const word of words.split(",")) {
      await page.getByRole("button", { name: word, exact: true }).click();
      await page.getByText(`Played “${word}”.`).waitFor();
      await page.locator("#stop:disabled").waitFor();
      sounds.push(await taken(page));
    }
    const list = await page.locator("#heard li strong").allTextContents();
    await page.setViewportSize({ width: 340, height: 700 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    return { sounds, list, overflow, ...(await shown(page)) };
  },

  /** Listens to the stand-in for a microphone until argv[4] words are heard. */
  async microphone(page, count) {
    await page.getByRole("button", { name: "Use the microphone" }).press("Enter");
    await page.getByText("Listening to the microphone at").waitFor();
    const focus = await page.evaluate(() => document.activeElement.id);
    await page
      .locator("#heard li")
      .nth(count - 1)
      .waitFor();
    const during = await shown(page);
    await page.keyboard.press("Enter");
    await page.locator("#stop:disabled").waitFor();
    return { sounds: [await taken(page)], focus, during, ...(await shown(page)) };
  },

  /** One picture for the docs while all clips are played: a wide page, and a phone in the dark beside it. */
  async picture(page, file) {
    const shots = [];
    const shoot = async (word) => {
      await page.getByText(word, { exact: true }).and(page.locator("#word")).waitFor();
      shots.push((await page.screenshot()).toString("base64"));
    };
    await page.setViewportSize({ width: 1000, height: 1090 });
    await page.locator("#play").click();
    await shoot("right");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 390, height: 1090 });
    await shoot("yes");
    const both = await page.context().newPage();
    await both.setViewportSize({ width: 1414, height: 1090 });
    const images = shots.map((shot) => `<img src="data:image/png;base64,${shot}">`).join("");
    await both.setContent(`<body style="margin:0;display:flex;gap:24px;background:#fff">${images}`);
    await both.screenshot({ path: file });
    return {};
  },

  /** Each problem that a page can meet, by name: what it says. */
  async problems(page) {
    const said = {};
    const fresh = async (name, before, after) => {
      await page.unrouteAll();
      await before?.();
      await page.reload();
      await after?.();
      await page.getByRole("alert").and(page.locator(":not(:empty)")).waitFor();
      said[name] = (await shown(page)).problem;
    };
    const gone = (pattern) => page.route(pattern, (route) => route.fulfill({ status: 404, body: "" }));
    const press = () => page.locator("#microphone:enabled").click();
    await fresh("no-wasm", () => gone("**/*.wasm"));
    await fresh("no-runtime", () => gone("**/ort.wasm.min.mjs"));
    await fresh("no-model", () => gone("**/*.onnx"));
    await fresh("no-list", () => gone("**/clips.json"));
    await fresh(
      "no-clip",
      () => gone("**/up.wav"),
      () => page.locator("#clips button:enabled", { hasText: "up" }).click(),
    );
    await fresh("NotFoundError", null, press);
    for (const name of ["NotAllowedError", "NotReadableError"]) {
      await fresh(name, null, async () => {
        await page.evaluate((text) => {
          navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", text));
        }, name);
        await press();
      });
    }
    await fresh("insecure", null, async () => {
      await page.evaluate(() => Object.defineProperty(navigator, "mediaDevices", { value: undefined }));
      await press();
    });
    await fresh("rule", null, async () => {
      await page.locator("#microphone:enabled").waitFor();
      await page.getByText("When a word counts").click();
      await page.getByLabel("Only these words").fill("yes, hello");
      await page.getByLabel("Only these words").press("Enter");
    });
    await page.getByLabel("Only these words").fill("yes, no");
    await page.getByLabel("Only these words").press("Enter");
    await page.locator("#problem").waitFor({ state: "hidden" });
    return { said, words: await page.getByLabel("Only these words").inputValue() };
  },
};

/** What the worker has told since the last call: samples at the model's rate, words, and the newest scores. */
function taken(page) {
  return page.evaluate(() => {
    const { samples, words, probabilities } = window.taken;
    window.taken = { samples: [], words: [], probabilities: null };
    const bytes = new Uint8Array(Float32Array.from(samples).buffer);
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return { samples: btoa(text), words, probabilities };
  });
}

function shown(page) {
  return page.evaluate(() => {
    const text = (id) => document.getElementById(id).textContent;
    return { word: text("word"), status: text("status"), problem: text("problem"), step: text("step"), load: text("load") };
  });
}

async function main(scenario, url, argument, file) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--disable-background-networking",
      "--autoplay-policy=no-user-gesture-required",
      ...(file
        ? [
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            `--use-file-for-fake-audio-capture=${file}%noloop`,
          ]
        : []),
    ],
  });
  try {
    const context = await browser.newContext({ viewport: { width: 1000, height: 900 } });
    const page = await context.newPage();
    const elsewhere = [];
    const errors = [];
    context.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) elsewhere.push(request.url());
    });
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(url);
    if (scenario !== "problems") {
      await page.locator("#microphone:enabled").waitFor();
      await page.evaluate(async () => {
        const { app } = await import("./src/main.js");
        window.taken = { samples: [], words: [], probabilities: null };
        app.addEventListener("heard", ({ detail }) => {
          window.taken.samples.push(...detail.samples);
          window.taken.probabilities = detail.probabilities && [...detail.probabilities];
        });
        app.addEventListener("word", ({ detail }) => window.taken.words.push(detail));
      });
    }
    const found = await SCENARIOS[scenario](page, argument);
    console.log(JSON.stringify({ ...found, elsewhere, errors }));
  } finally {
    await browser.close();
  }
}

await main(...process.argv.slice(2));
