// The page: it shows and asks; worker.js does what takes time.
//
// The address may say, for trying things out: ?threads=1, ?whole= and ?strip= (pixels: see
// worker.js), ?most= (the most pixels that are taken without asking), ?gpu=off or any (software too).

const $ = (selector) => document.querySelector(selector);
const settings = new URLSearchParams(location.search);
const number = (name) => (settings.has(name) ? Number(settings.get(name)) : undefined);

// What a tab holds: measured at 12 megapixels, where it took 1.8 GB. Phones have less.
const MOST_PIXELS = number("most") ?? ((navigator.deviceMemory ?? 8) <= 4 ? 8e6 : 16e6);
const EDGES = [2048, 1024, 512];
const PATIENCE_MS = 350;

const state = {
  styles: [],
  style: null,
  file: null, // {blob, name, type}
  own: null, // [width, height] of the photo
  size: null, // of what is painted
  longEdge: 0,
  loaded: false, // the worker has the photo
  opening: false,
  painting: false,
  painted: false,
  strength: 1,
  proved: null,
  pace: null, // seconds a megapixel
};

// --- The worker ---------------------------------------------------------------------------------

let worker = null;
let asked = new Map();
let count = 0;

/** Begin anew, with a worker that has no photo; what the last one was doing is cancelled. */
function startWorker() {
  worker?.terminate();
  Object.assign(state, { loaded: false, painted: false, proved: null });
  $(".frame").classList.add("plain");
  for (const { reject } of asked.values()) reject(new Cancelled());
  asked = new Map();
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    const waiting = asked.get(data.id);
    if (!waiting) return;
    if ("progress" in data) return waiting.progress?.(data.progress);
    asked.delete(data.id);
    if (data.error) waiting.reject(Object.assign(new Error(data.error.text), data.error));
    else waiting.resolve(data);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    const error = Object.assign(new Error(event.message || "the worker ended"), { kind: "memory" });
    for (const { reject } of asked.values()) reject(error);
    asked = new Map();
  };
  ask("begin", { threads: threads() }).catch(tell);
}

class Cancelled extends Error {}

function ask(does, payload = {}, progress = null) {
  const id = ++count;
  return new Promise((resolve, reject) => {
    asked.set(id, { resolve, reject, progress });
    worker.postMessage({ id, does, ...payload });
  });
}

function threads() {
  if (!self.crossOriginIsolated) return 1; // no shared memory without the headers
  return number("threads") ?? Math.max(1, Math.min(8, navigator.hardwareConcurrency || 1));
}

function sayEngine(provider = "wasm") {
  const n = threads();
  const plain = n === 1 ? "1 thread" : `${n} threads`;
  $("#engine").textContent = provider === "webgpu" ? "GPU" : plain;
  $("#engine").title = self.crossOriginIsolated
    ? "What computes the picture"
    : "What computes the picture. With the headers COOP and COEP it would be all cores.";
}

// --- Opening ------------------------------------------------------------------------------------

async function open(blob, name, longEdge = 0) {
  if (!blob) return;
  hideMessage();
  // What is painted would be shown as the next photo's picture, and one of two photos be lost.
  if (state.painting || state.opening) startWorker();
  startIfGone();
  busy("Opening");
  state.opening = true;
  try {
    const opened = await ask("open", { file: blob, longEdge, most: longEdge ? Infinity : MOST_PIXELS });
    state.opening = false;
    if (opened.tooLarge) {
      idle();
      const edge = await consent(opened.own);
      return edge ? open(blob, name, edge) : undefined;
    }
    Object.assign(state, { file: { blob, name, type: blob.type }, longEdge, painted: false });
    state.loaded = true;
    Object.assign(state, { own: opened.own, size: opened.size });
    draw($("#before"), opened.before);
    showPicture();
    offerSizes();
    idle();
    if (state.style) await paint();
    else say(`Photo opened, ${state.size.join(" by ")} pixels. Choose a style.`);
  } catch (error) {
    if (!(error instanceof Cancelled)) state.opening = false; // or the next one is being opened
    fail(error, name);
  }
}

/** Give the worker the photo, where it is a new one. */
async function load() {
  if (state.loaded) return;
  await ask("open", { file: state.file.blob, longEdge: state.longEdge, most: Infinity });
  state.loaded = true;
}

function startIfGone() {
  if (!worker) startWorker();
}

/** Ask whether a photo may be shrunk; return the long edge, or null. */
function consent([width, height]) {
  const scale = Math.sqrt(MOST_PIXELS / (width * height));
  const edge = Math.floor(Math.max(width, height) * scale);
  const shrunk = [width, height].map((side) => Math.round(side * (edge / Math.max(width, height))));
  $("#consent-text").textContent =
    `This photo has ${megapixels(width, height)} megapixels, more than a tab has memory for. ` +
    `May it be shrunk to ${shrunk.join(" × ")}? The program, fast-style stylize, takes any size.`;
  const dialog = $("#consent");
  dialog.showModal();
  return new Promise((resolve) => {
    const close = (answer) => {
      dialog.close();
      resolve(answer);
    };
    $("#agree").onclick = () => close(edge);
    $("#refuse").onclick = () => close(null);
    dialog.oncancel = () => resolve(null);
  });
}

function megapixels(width, height) {
  const millions = (width * height) / 1e6;
  return millions >= 10 ? Math.round(millions) : millions.toPrecision(2);
}

function offerSizes() {
  const long = Math.max(...state.own);
  const options = [[0, `As the photo, ${state.own.join(" × ")}`]];
  if (state.longEdge && !EDGES.includes(state.longEdge)) {
    options[0] = [state.longEdge, `Shrunk, ${state.size.join(" × ")}`];
  }
  for (const edge of EDGES) {
    if (edge < long) options.push([edge, `${edge} pixels: bolder, faster`]);
  }
  $("#size").replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  $("#size").value = state.longEdge;
}

// --- Painting -----------------------------------------------------------------------------------

async function paint() {
  const style = state.style;
  hideMessage();
  const [width, height] = state.size;
  const begun = performance.now();
  busy(estimate(width * height), 0);
  say(`Painting in the style ${style.title}.`);
  const options = {
    style: style.name,
    channels: style.channels,
    whole: number("whole"),
    pixels: number("strip"),
  };
  state.painting = true;
  try {
    await load();
    const done = await ask("stylize", options, (share) => {
      const left = ((performance.now() - begun) * (1 - share)) / share / 1000;
      busy(share > 0.03 ? remaining(left) : "Painting", share);
    });
    state.painted = true;
    state.pace = (done.seconds / (width * height)) * 1e6;
    sayEngine(done.provider);
    await show();
    state.painting = false;
    idle();
    document.body.dataset.seconds = done.seconds.toFixed(2);
    say(`Painted in the style ${style.title}, in ${done.seconds.toFixed(1)} seconds.`);
    proveGpu(style);
  } catch (error) {
    state.painting = false;
    fail(error);
  }
}

function estimate(pixels) {
  return state.pace ? remaining((state.pace * pixels) / 1e6) : "Painting";
}

function remaining(seconds) {
  if (seconds < 1.5) return "A second left";
  return seconds < 90
    ? `${Math.ceil(seconds)} seconds left`
    : `${Math.round(seconds / 60)} minutes left`;
}

async function show() {
  const { after } = await ask("show", { strength: state.strength });
  draw($("#after"), after);
  $(".frame").classList.remove("plain");
  $(".tag.right").textContent = state.style.title;
  $("#after").setAttribute("aria-label", `The photo painted in the style ${state.style.title}`);
  update();
}

/** Once a picture is there: is there a GPU, and does it compute what WASM computes? */
async function proveGpu(style) {
  if (state.proved || settings.get("gpu") === "off" || !navigator.gpu) return;
  state.proved = "asked";
  try {
    const { gpu, why } = await ask("prove", { style: style.name, any: settings.get("gpu") === "any" });
    state.proved = gpu ? "yes" : "no";
    document.body.dataset.gpu = gpu ? "proved" : "refused";
    document.body.dataset.gpuWhy = why;
    if (gpu) sayEngine("webgpu");
  } catch (error) {
    if (!(error instanceof Cancelled)) document.body.dataset.gpu = "failed";
  }
}

async function cancel() {
  startWorker();
  state.opening = false;
  sayEngine();
  idle();
  if (state.file) await load();
}

async function chooseStyle(name) {
  state.style = state.styles.find((style) => style.name === name);
  if (!state.file) return say(`Style ${state.style.title}. Now open a photo.`);
  if (state.opening) return; // what is opened is painted then
  if (isBusy()) await cancel();
  if (state.style?.name === name) await paint(); // or another one was chosen meanwhile
}

// --- Failing ------------------------------------------------------------------------------------

function fail(error, name = "") {
  if (error instanceof Cancelled) return;
  idle();
  update();
  if (error.kind === "photo") {
    return tell(new Error(`${name || "This"} is not a photo that this browser can read.`));
  }
  if (error.kind === "memory" && state.size) {
    // What ran out of memory keeps what it has.
    const [width, height] = state.size;
    const half = Math.round(Math.max(width, height) / 2);
    const { blob, name: file } = state.file;
    startWorker();
    update();
    return tell(new Error(`Not enough memory for ${width} × ${height} pixels.`), {
      text: "Try at half the size",
      act: () => open(blob, file, half),
    });
  }
  tell(error);
}

function tell(error, cure = null) {
  if (error instanceof Cancelled) return;
  const text = error.message.split("\n")[0].slice(0, 200);
  $("#message p").textContent = text;
  $("#message").hidden = false;
  $("#cure").hidden = !cure;
  if (cure) {
    $("#cure").textContent = cure.text;
    $("#cure").onclick = () => {
      hideMessage();
      cure.act();
    };
  }
}

function hideMessage() {
  $("#message").hidden = true;
}

// --- Showing ------------------------------------------------------------------------------------

function draw(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
}

function showPicture() {
  const [width, height] = state.size;
  $("#empty").hidden = true;
  $("#picture").hidden = false;
  const frame = $(".frame");
  frame.style.setProperty("--ratio", width / height);
  frame.classList.add("plain");
  update();
}

function busy(text, share = null) {
  const bar = $("#busy progress");
  if (share) bar.value = share;
  else bar.removeAttribute("value");
  $("#doing").textContent = text;
  if (isBusy()) return;
  $("#busy").hidden = false;
  $("#stage").setAttribute("aria-busy", "true");
  update();
}

function idle() {
  $("#busy").hidden = true;
  $("#stage").removeAttribute("aria-busy");
  update();
}

function isBusy() {
  return !$("#busy").hidden;
}

function update() {
  const there = Boolean(state.file);
  $("#strength").disabled = !state.painted;
  $("#download").disabled = !state.painted || isBusy();
  $("#size").disabled = !there || isBusy();
  $("#another").disabled = !there;
}

/** Tell those who do not see the page. */
function say(text) {
  $("#said").textContent = text;
}

async function download() {
  const jpeg = /jpe?g/.test(state.file.type);
  const type = jpeg ? "image/jpeg" : "image/png";
  busy("Writing the file");
  try {
    const { blob } = await ask("encode", { strength: state.strength, type });
    const link = document.createElement("a");
    const stem = (state.file.name || "photo").replace(/\.[^.]*$/, "");
    link.download = `${stem}.${state.style.name}.${jpeg ? "jpg" : "png"}`;
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    idle();
  } catch (error) {
    fail(error);
  }
}

// --- The camera ---------------------------------------------------------------------------------

let stream = null;

async function openCamera() {
  try {
    if (!navigator.mediaDevices) throw new Error("no camera");
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
  } catch {
    return tell(new Error("There is no camera that this page may use."));
  }
  const video = $("#camera video");
  video.srcObject = stream;
  $("#camera").showModal();
  await video.play();
}

function closeCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("#camera").close();
}

async function snap() {
  const video = $("#camera video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  closeCamera();
  await open(blob, "camera.png");
}

// --- Beginning ----------------------------------------------------------------------------------

function cards(styles) {
  const made = styles.map(({ name, title }) => {
    const card = document.createElement("label");
    card.className = "card";
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "style" });
    radio.value = name;
    const image = new Image();
    Object.assign(image, { src: `thumbs/${name}.jpg`, alt: "", width: 240, height: 180 });
    const text = Object.assign(document.createElement("span"), { textContent: title });
    card.append(radio, image, text);
    return card;
  });
  $(".cards").append(...made);
  $(".fan").append(
    ...styles.slice(0, 3).map(({ name }) => Object.assign(new Image(), { src: `thumbs/${name}.jpg`, alt: "" })),
  );
}

let patience = 0;

function listen() {
  $("#choose").onclick = $("#another").onclick = () => $("#file").click();
  $("#file").onchange = ({ target }) => {
    open(target.files[0], target.files[0]?.name);
    target.value = "";
  };
  $("#sample").onclick = async () => open(await (await fetch("sample.jpg")).blob(), "sample.jpg");
  $("#shoot").onclick = openCamera;
  $("#snap").onclick = snap;
  $("#close-camera").onclick = closeCamera;
  $("#camera").oncancel = closeCamera;
  $("#cancel").onclick = () => {
    say("Cancelled.");
    // So that the same style can be chosen again.
    for (const radio of document.querySelectorAll(".card input")) radio.checked = false;
    state.style = null;
    cancel().catch(fail);
  };
  $("#dismiss").onclick = hideMessage;
  $("#download").onclick = download;
  // Arrow keys pass over styles that nobody wants painted.
  $("#styles").onchange = ({ target }) => {
    clearTimeout(patience);
    patience = setTimeout(() => chooseStyle(target.value).catch(fail), PATIENCE_MS);
  };
  $("#divider").oninput = ({ target }) => $(".frame").style.setProperty("--at", `${target.value}%`);
  let drawing = false;
  $("#strength").oninput = async ({ target }) => {
    state.strength = target.value / 100;
    $("#strength-said").textContent = `${target.value} %`;
    if (drawing || !state.painted || isBusy()) return;
    drawing = true;
    // What was asked for meanwhile is the next.
    for (let shown = null; shown !== state.strength; ) {
      shown = state.strength;
      await show().catch(fail);
    }
    drawing = false;
  };
  $("#size").onchange = ({ target }) => open(state.file.blob, state.file.name, Number(target.value));
  document.addEventListener("paste", ({ clipboardData }) => {
    const file = [...clipboardData.files][0];
    if (file) open(file, file.name);
    else tell(new Error("There is no photo in what you pasted."));
  });
  const stage = $("#stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) open(file, file.name);
    else tell(new Error("There is no photo in what you dropped."));
  });
}

async function begin() {
  listen();
  sayEngine();
  startWorker();
  const response = await fetch("styles.json");
  state.styles = (await response.json()).styles;
  cards(state.styles);
}

begin().catch(tell);
