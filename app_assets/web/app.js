/* The page: what is chosen and drawn, and how the parts hear of each other. */

import { BrushBar } from "./brush_bar.js";
import { Canvas } from "./canvas.js";
import { Panel } from "./panel.js";
import { Painter, paintBars } from "./paint.js";
import { Results } from "./results.js";
import { Studio } from "./studio.js";
import { connect } from "./transport.js";
import { History, SCHEMA, coloured, emptyFile, joined, onPicture, readFile, retime } from "./tracks.js";
import { fromLink } from "./wire.js";

const $ = (id) => document.getElementById(id);
const LENGTHS = [17, 33, 49, 65, 97];
const MAX_OWN = 2 ** 20; // bytes of a drawing of this page

class Page {
  constructor(settings) {
    this.settings = settings;
    this.picture = null; // {picture, src, width, height, image}
    this.history = new History(emptyFile(33, settings.fps));
    this.selected = null; // {id, index}
    this.tool = "live";
    this.compared = null; // take shown beside the current one
    this.studio = new Studio({
      open: (receive, changed) => connect(settings.transport, receive, changed),
      decode: (bytes) => createImageBitmap(new Blob([bytes], { type: "image/webp" })),
      tell: (event, detail) => this.heard(event, detail),
      fps: settings.fps,
      factor: settings.temporalFactor,
      now: () => performance.now(),
    });
    this.painter = new Painter($("pad"));
    this.canvas = new Canvas(this, $("pad"));
    this.panel = new Panel(this);
    this.brush = new BrushBar(this);
    this.results = new Results(this);
  }

  get file() {
    return this.history.value;
  }

  get frame() {
    return this.studio.playhead.frame;
  }

  /* Another drawing; a watched take follows it from its next latent on. */
  draw(file, selected = null) {
    this.history.set(file);
    this.selected = selected;
    this.studio.replan(this.planOf(this.file.num_frames), Math.max(5, this.file.num_frames));
    this.refresh();
  }

  step(direction) {
    this.history[direction]();
    this.selected = null;
    this.refresh();
  }

  planOf(numFrames) {
    const { width, height } = this.picture || {};
    const file = this.file.tracks.length || this.file.camera ? this.file : null;
    return file && { ...file, num_frames: Math.min(file.num_frames, numFrames), canvas: { ...file.canvas, width, height, fit: "cover" } };
  }

  /* What a take is made of, or null with a message. A watched one goes on for as long as the server allows. */
  order(paced) {
    if (!this.picture) {
      this.problem("image: there is none yet; choose a picture or an example first");
      return null;
    }
    const number = (id) => ($(id).value === "" ? NaN : Number($(id).value));
    const [seed, steps] = [number("seed"), number("steps")];
    if (!Number.isInteger(seed) || seed < 0) return this.problem("seed: type a whole number of at least 0");
    if (!Number.isInteger(steps) || steps < 1 || steps > 64) return this.problem("steps: type a whole number from 1 to 64");
    const numFrames = paced ? this.settings.maxFrames : Number($("frames").value);
    const { picture } = this.picture;
    return { picture, prompt: $("prompt").value, seed, steps, num_frames: numFrames, tracks: this.planOf(numFrames) };
  }

  async setPicture(shown) {
    const image = new Image();
    image.src = shown.src;
    await image.decode();
    this.studio.clear();
    this.picture = { ...shown, image };
    document.documentElement.style.setProperty("--aspect", shown.width / shown.height);
    this.problem("");
    this.results.clear();
    this.canvas.fit();
    this.refresh();
  }

  async upload(blob) {
    this.say("Reading the picture…");
    if (blob.size > this.settings.maxUpload) {
      const most = Math.floor(this.settings.maxUpload / 2 ** 20);
      return this.problem(`image: ${blob.name || "the picture"} has more than ${most} MB; save it smaller`);
    }
    const name = encodeURIComponent(blob.name || "the picture");
    const answer = await fetch(`picture?name=${name}`, { method: "POST", body: blob });
    const shown = await answer.json();
    this.say("");
    if (!answer.ok) return this.problem(shown.message);
    this.history.set(emptyFile(this.file.num_frames, this.settings.fps));
    this.selected = null;
    await this.setPicture(shown);
    return this.say(this.settings.live ? "Drag on the picture." : "Draw on the picture, then press Generate.");
  }

  async chooseExample(index) {
    const example = this.settings.examples[index];
    this.open(example);
    await this.setPicture(example);
    this.generate();
  }

  /* Take over a drawing with its settings. */
  open({ prompt, seed, tracks, steps }) {
    if (prompt !== undefined) $("prompt").value = prompt;
    if (seed !== undefined) $("seed").value = seed;
    if (steps) $("steps").value = steps;
    this.setLength(tracks.num_frames);
    this.draw(coloured(tracks));
  }

  setLength(numFrames) {
    const select = $("frames");
    if (![...select.options].some((option) => Number(option.value) === numFrames)) select.add(new Option(numFrames, numFrames));
    select.value = numFrames;
  }

  /* A drawing of this page, or another system's track file (of two parts, for some), which the server reads. */
  async importFile(files) {
    try {
      const chosen = joined(files);
      const text = chosen.size <= MAX_OWN ? await chosen.text() : "";
      const read = text.includes(SCHEMA) ? readFile(text) : await this.convert(chosen);
      const file = this.picture ? onPicture(read, this.picture) : read;
      const { prompt, seed, steps } = file.source || {};
      this.open({ prompt, seed, steps, tracks: file });
      this.problem("");
      this.say(`${file.tracks.length} tracks over ${file.num_frames} frames.`);
    } catch (error) {
      this.problem(error.message);
    }
  }

  async convert(chosen) {
    if (!this.picture) throw new Error("tracks: choose the picture they belong to first; this file's places are of it");
    this.say("Reading the tracks…");
    const { width, height } = this.picture.own;
    const answer = await fetch(`tracks?width=${width}&height=${height}&num_frames=${$("frames").value}`, { method: "POST", body: chosen });
    const { tracks, message } = await answer.json();
    this.say("");
    if (!answer.ok) throw new Error(message);
    return readFile(JSON.stringify(tracks));
  }

  generate() {
    const order = this.order(false);
    if (!order) return;
    this.problem("");
    this.studio.begin(order, false);
    this.say("Starting…");
    this.refresh();
  }

  heard(event, detail) {
    if (event === "error") this.problem(detail);
    if (event === "lost") this.say(detail);
    if (event === "queue") this.say(`All seats are taken. You are number ${detail.position} in the queue.`);
    if (event === "seated") this.say("");
    if (event === "expired") {
      const why = detail.idle ? "without a move" : "since others wait";
      this.say(`Your seat was given back after ${detail.seconds} s ${why}. Frames stay; press to go on anew.`);
    }
    if (event === "progress") this.say(`Step ${detail.step} of ${detail.steps}; the video plays when all are done.`);
    if (event === "cancelled") this.say(`Cancelled after ${detail.frames} frames.`);
    const { film } = this.studio;
    if (event === "frame" && film && !film.paced && !film.done) this.say(`${film.length} of ${film.numFrames} frames`);
    if (event === "done") this.say(`Done: ${detail.frames} frames.`);
    if (event === "files") this.results.received(detail.header, detail.parts);
    this.refresh();
  }

  problem(text) {
    $("problem").textContent = text;
    $("problem").hidden = !text;
    return null;
  }

  say(text) {
    $("status").textContent = text;
  }

  /* Everything on the page that follows from the state. */
  refresh() {
    const { studio } = this;
    $("empty").hidden = this.picture !== null;
    $("go").disabled = studio.busy;
    $("stop").disabled = !studio.busy;
    this.panel.refresh();
    this.brush.refresh();
    this.results.refresh();
    this.showFrame();
  }

  showFrame() {
    const { studio } = this;
    const { film } = studio;
    const frame = Math.max(0, this.frame);
    const last = Math.max(0, (film?.length || 0) - 1);
    const steerable = Boolean(this.settings.live && film && !film.lost && film.length);
    $("play").disabled = !film?.length;
    $("play").textContent = studio.moving ? "Pause" : "Play";
    Object.assign($("scrub"), { max: last, disabled: !last, value: frame });
    $("rewind").disabled = !steerable || frame >= last;
    $("branch").disabled = !steerable;
    $("frame").textContent = film ? `${frame} of ${last}` : "–";
    const { first, fps, lag } = studio.stats;
    const parts = [];
    if (first !== null) parts.push(`first frame ${Math.round(first)} ms`);
    if (fps !== null) parts.push(`${fps.toFixed(0)} fps`);
    if (lag !== null) parts.push(`lag ${lag} frames`);
    $("hud").textContent = film ? parts.join(" · ") : "";
    $("pad").dataset.frame = String(this.frame);
    this.canvas.paint();
    paintBars($("bars"), this.file, film, frame, film?.length > 1 ? last + 1 : this.file.num_frames);
    this.results.paint();
  }

  /* The picture on the screen: a frame, or the reference. */
  shown(film = this.studio.film, frame = this.frame) {
    if (!film || frame < 0 || !film.length) return this.picture?.image;
    return film.at(Math.min(frame, film.length - 1), () => this.showFrame()) || this.picture?.image;
  }

  run(now) {
    if (this.studio.tick(now)) this.showFrame();
    requestAnimationFrame((next) => this.run(next));
  }
}

function fillExamples(page) {
  page.settings.examples.forEach((example, index) => {
    const button = document.createElement("button");
    const image = Object.assign(new Image(), { src: example.src, alt: "" });
    button.type = "button";
    button.append(image, example.title);
    button.addEventListener("click", () => page.chooseExample(index));
    $("examples").append(button);
  });
}

/* The first example plays once by itself, as the server's rehearsal made it, unless the visitor minds motion. */
async function playTrailer(page) {
  const example = page.settings.examples[0];
  if (!page.settings.trailer || page.picture || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const shown = $("trailer");
  shown.src = "trailer.webp";
  try {
    await shown.decode();
  } catch {
    return; // the page works without it
  }
  page.open(example);
  await page.setPicture(example);
  shown.hidden = false;
  page.say(`This is what the model made of “${example.title}”. Now drag yourself.`);
  const over = () => (shown.hidden = true);
  setTimeout(over, (1000 * example.tracks.num_frames) / page.settings.fps + 1500);
  for (const event of ["pointerdown", "keydown", "drop", "paste"]) addEventListener(event, over, { once: true, capture: true });
}

function listenToPictures(page) {
  const take = (files) => files.length && page.upload(files[0]);
  $("upload").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = "";
  });
  $("empty").addEventListener("click", () => $("upload").click());
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    $("stage").addEventListener(name, (event) => {
      event.preventDefault();
      $("stage").classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
}

function listenToButtons(page) {
  const { studio } = page;
  $("go").addEventListener("click", () => page.generate());
  $("stop").addEventListener("click", () => studio.cancel());
  $("play").addEventListener("click", () => studio.toggle());
  $("scrub").addEventListener("input", (event) => {
    studio.seek(Number(event.target.value));
    page.refresh();
  });
  $("rewind").addEventListener("click", () => studio.rewind());
  $("branch").addEventListener("click", () => studio.branch());
  $("frames").addEventListener("change", (event) => page.draw(retime(page.file, Number(event.target.value))));
  const { live } = page.settings;
  const tools = [...document.querySelectorAll("[data-tool]")].filter((button) => live || button.dataset.tool !== "live");
  const choose = (button) => {
    page.tool = button.dataset.tool;
    for (const one of tools) {
      one.setAttribute("aria-checked", String(one === button));
      one.tabIndex = one === button ? 0 : -1;
    }
    page.canvas.letGo();
    page.refresh();
  };
  tools.forEach((button, i) => {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const next = tools[(i + move + tools.length) % tools.length];
      next.focus();
      choose(next);
    });
  });
  if (!live) offerNoDrag(choose, tools[0]);
}

/* The model makes a video at once: draw first, then watch. */
function offerNoDrag(choose, first) {
  document.querySelector('[data-tool="live"]').hidden = true;
  for (const id of ["rewind", "branch"]) $(id).hidden = true;
  $("lead").textContent = "Draw where things go on the picture and press Generate: the video plays when it is made.";
  choose(first);
}

/* A link may carry a drawing with its settings, and name an example. */
async function openLink(page) {
  if (!location.hash.startsWith("#d=")) return;
  try {
    const shared = await fromLink(location.hash.slice(3));
    page.open({ ...shared, tracks: readFile(JSON.stringify(shared.tracks)) });
    const example = page.settings.examples.find((one) => one.picture === shared.example);
    if (example) await page.setPicture(example);
    page.say(example ? "Press Generate to see it." : "The drawing is here; choose the picture it belongs to.");
  } catch {
    page.problem("link: it carries no drawing that can be read; ask for another one");
  }
}

async function main() {
  const settings = await (await fetch("settings.json")).json();
  LENGTHS.filter((length) => length <= settings.maxFrames).forEach((length) => $("frames").add(new Option(length, length)));
  $("frames").value = 33;
  $("steps").value = settings.steps;
  const page = new Page(settings);
  fillExamples(page);
  listenToPictures(page);
  listenToButtons(page);
  page.refresh();
  await openLink(page);
  await playTrailer(page);
  document.documentElement.dataset.ready = "true";
  requestAnimationFrame((now) => page.run(now));
}

main();
