/* The drawing pad. Body of a function(element, trigger, props, server, upload, watch): see gr.HTML, js_on_load.

   props.picture  from the server: {src, width, height}, the picture exactly as it is generated from
   props.stream   from the server: {clip, fps, total, frames: [data URL, ...]}, all frames so far
   props.value    both ways: JSON {"paths": [{"color", "points": [[ms, x, y, force], ...]}]}, x and y in 0..1

   Frames are painted on the canvas under the paths, at the video's own rate, as soon as they are decoded. */

const COLOURS = ["#ff3b5c", "#0a84ff", "#ffb300", "#22b455", "#b65cff", "#00b8c4"];
const THIN_MS = 4;
const KEY_STEP_MS = 60;

const stage = element.querySelector(".pad-stage");
const canvas = element.querySelector("canvas");
const empty = element.querySelector(".pad-empty");
const hint = element.querySelector(".pad-hint");
const button = (name) => element.querySelector(`[data-act="${name}"]`);
const pen = canvas.getContext("2d");

let picture = null; // Image
let paths = []; // finished ones
const active = new Map(); // pointer id, or "key" -> path being drawn
let cursor = null; // [x, y] of the keyboard cursor
let clip = { id: "", fps: 16, total: 1, received: 0, frames: [] };
let shown = -1; // frame on the canvas, -1 is the picture
let follow = true; // false once the user draws again: new frames do not take the canvas away
let due = 0;
let ticking = 0;
let decoding = Promise.resolve();

/* ---- painting ---- */

function paint() {
  const width = canvas.width;
  const height = canvas.height;
  const base = shown >= 0 ? clip.frames[shown] : picture;
  canvas.dataset.frame = String(shown);
  if (!base) return pen.clearRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(base, 0, 0, width, height);
  [...paths, ...active.values()].forEach((path, index) => paintPath(path, index + 1, width, height));
  if (cursor && document.activeElement === canvas) paintCursor(width, height);
}

function paintPath(path, number, width, height) {
  const unit = Math.max(width, height) / 100;
  const at = path.points.map(([, x, y]) => [x * width, y * height]);
  const trace = (colour, thickness) => {
    pen.beginPath();
    at.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    Object.assign(pen, { strokeStyle: colour, lineWidth: thickness, lineCap: "round", lineJoin: "round" });
    pen.stroke();
  };
  pen.globalAlpha = shown >= 0 ? 0.75 : 1;
  trace("rgba(0,0,0,0.55)", unit * 1.5);
  trace(path.color, unit * 0.9);
  if (at.length > 1) arrow(at, path.color, unit);
  disc(at[0], unit * 2, path.color);
  Object.assign(pen, { fillStyle: "#fff", textAlign: "center", textBaseline: "middle" });
  pen.font = `700 ${unit * 2.6}px system-ui, sans-serif`;
  pen.fillText(String(number), at[0][0], at[0][1] + unit * 0.15);
  pen.globalAlpha = 1;
  if (shown >= 0) disc(placeAt(path, width, height), unit * 1.5, "#fff", path.color);
}

function disc([x, y], radius, fill, edge = "#fff") {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  Object.assign(pen, { fillStyle: fill, strokeStyle: edge, lineWidth: radius * 0.35 });
  pen.fill();
  pen.stroke();
}

function arrow(at, colour, unit) {
  const [x, y] = at[at.length - 1];
  const from = [...at].reverse().find(([a, b]) => Math.hypot(x - a, y - b) > unit * 2) || at[0];
  const turn = Math.atan2(y - from[1], x - from[0]);
  pen.save();
  pen.translate(x, y);
  pen.rotate(turn);
  pen.beginPath();
  pen.moveTo(unit * 1.6, 0);
  pen.lineTo(-unit * 1.9, unit * 1.9);
  pen.lineTo(-unit * 1.9, -unit * 1.9);
  pen.closePath();
  Object.assign(pen, { fillStyle: colour, strokeStyle: "rgba(0,0,0,0.55)", lineWidth: unit * 0.35 });
  pen.stroke();
  pen.fill();
  pen.restore();
}

function paintCursor(width, height) {
  const unit = Math.max(width, height) / 100;
  const [x, y] = [cursor[0] * width, cursor[1] * height];
  for (const [colour, thickness] of [["#000", unit], ["#fff", unit * 0.5]]) {
    pen.beginPath();
    pen.moveTo(x - unit * 3, y);
    pen.lineTo(x + unit * 3, y);
    pen.moveTo(x, y - unit * 3);
    pen.lineTo(x, y + unit * 3);
    Object.assign(pen, { strokeStyle: colour, lineWidth: thickness });
    pen.stroke();
  }
}

/* Where the path is at the frame on the canvas: its own duration is stretched to the whole clip. */
function placeAt(path, width, height) {
  const points = path.points;
  const last = points[points.length - 1];
  const time = points[0][0] + ((last[0] - points[0][0]) * shown) / Math.max(clip.total - 1, 1);
  const next = points.findIndex((point) => point[0] >= time);
  const b = next < 0 ? last : points[next];
  const a = next > 0 ? points[next - 1] : b;
  const share = b[0] > a[0] ? (time - a[0]) / (b[0] - a[0]) : 1;
  return [(a[1] + share * (b[1] - a[1])) * width, (a[2] + share * (b[2] - a[2])) * height];
}

function fitCanvas() {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(stage.clientWidth * scale));
  const height = Math.max(1, Math.round(stage.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  paint();
}

/* ---- drawing ---- */

const clamp = (value) => Math.min(1, Math.max(0, value));
const round = (value, digits) => Number(value.toFixed(digits));

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
}

/* A mouse has no pressure; screens that cannot measure it say 0 or 0.5. */
function force(event) {
  const measured = event.pointerType !== "mouse" && event.pressure > 0 && event.pressure !== 0.5;
  return measured ? Math.min(event.pressure, 1) : 1;
}

function begin(id, point) {
  showPicture();
  const used = [...paths, ...active.values()].map((path) => path.color);
  const color = COLOURS.find((colour) => !used.includes(colour)) || COLOURS[used.length % COLOURS.length];
  active.set(id, { color, points: [point] });
  refresh();
}

function extend(path, point, always = false) {
  if (always || point[0] - path.points[path.points.length - 1][0] >= THIN_MS) path.points.push(point);
}

function finish(id) {
  paths.push(active.get(id));
  active.delete(id);
  send();
}

function send() {
  const rows = (path) => path.points.map(([t, x, y, p]) => [round(t, 1), round(x, 5), round(y, 5), round(p, 3)]);
  props.value = JSON.stringify({ paths: paths.map((path) => ({ color: path.color, points: rows(path) })) });
  refresh();
}

function refresh() {
  const count = paths.length;
  button("undo").disabled = button("clear").disabled = count === 0;
  button("replay").disabled = clip.frames.length === 0;
  empty.hidden = picture !== null;
  if (!picture) hint.textContent = "";
  else if (count === 0) hint.textContent = "Drag on the picture. Your speed becomes the speed of the motion.";
  else hint.textContent = `${count} path${count > 1 ? "s" : ""}. Draw more, or press Generate.`;
  paint();
}

canvas.addEventListener("pointerdown", (event) => {
  if (!picture || event.button !== 0) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  cursor = null;
  begin(event.pointerId, [event.timeStamp, ...place(event), force(event)]);
});

canvas.addEventListener("pointermove", (event) => {
  const path = active.get(event.pointerId);
  if (!path) return;
  const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const one of all.length ? all : [event]) extend(path, [one.timeStamp, ...place(one), force(one)]);
  paint();
});

canvas.addEventListener("pointerup", (event) => {
  const path = active.get(event.pointerId);
  if (!path) return;
  const pressed = path.points[path.points.length - 1][3];
  extend(path, [event.timeStamp, ...place(event), pressed], true);
  finish(event.pointerId);
});

canvas.addEventListener("pointercancel", (event) => active.has(event.pointerId) && finish(event.pointerId));

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
  const path = active.get("key");
  if (event.key in ARROWS) {
    const [dx, dy] = ARROWS[event.key];
    const reach = event.shiftKey ? 0.08 : 0.02;
    cursor = cursor || [0.5, 0.5];
    cursor = [clamp(cursor[0] + dx * reach), clamp(cursor[1] + dy * reach)];
    if (path) path.points.push([path.points[path.points.length - 1][0] + KEY_STEP_MS, ...cursor, 1]);
    paint();
  } else if (event.key === "Enter" || event.key === " ") {
    cursor = cursor || [0.5, 0.5];
    if (path) finish("key");
    else begin("key", [0, ...cursor, 1]);
    if (!path) hint.textContent = "Drawing: move with the arrow keys, end with Enter.";
  } else if (event.key === "Backspace" || event.key === "Delete") undo();
  else return;
  event.preventDefault();
});

canvas.addEventListener("focus", paint);
canvas.addEventListener("blur", () => (active.has("key") ? finish("key") : paint()));

function undo() {
  if (active.has("key")) active.delete("key");
  else paths.pop();
  showPicture();
  send();
}

element.querySelector(".pad").addEventListener("click", (event) => {
  const action = event.target.closest("[data-act]")?.dataset.act;
  if (action === "undo") undo();
  if (action === "clear") {
    paths = [];
    showPicture();
    send();
  }
  if (action === "replay") replay();
  if (action === "choose") document.querySelector("#picture-upload input[type=file]")?.click();
});

/* ---- dropping a file: handed to the upload button, which knows how ---- */

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  stage.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.toggle("is-over", name === "dragenter" || name === "dragover");
    const input = document.querySelector("#picture-upload input[type=file]");
    if (name !== "drop" || !event.dataTransfer.files.length || !input) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

/* ---- playing ---- */

function showPicture() {
  follow = false;
  shown = -1;
}

function replay() {
  shown = -1;
  follow = true;
  due = 0;
  keepPlaying();
}

function keepPlaying() {
  if (!ticking && follow) ticking = requestAnimationFrame(tick);
}

function tick(now) {
  ticking = 0;
  if (!follow || shown + 1 >= clip.frames.length) return;
  if (now >= due) {
    const step = 1000 / clip.fps;
    due = Math.max(due, now - step) + step;
    shown += 1;
    paint();
  }
  keepPlaying();
}

async function addFrame(id, url) {
  const frame = new Image();
  frame.src = url;
  await frame.decode();
  if (id !== clip.id) return;
  clip.frames.push(frame);
  button("replay").disabled = false;
  keepPlaying();
}

function onStream() {
  const stream = props.stream;
  if (!stream || !stream.clip) return;
  if (stream.clip !== clip.id) {
    clip = { id: stream.clip, fps: stream.fps, total: stream.total, received: 0, frames: [] };
    shown = -1;
    follow = true;
    due = 0;
  }
  const id = clip.id;
  for (const url of stream.frames.slice(clip.received)) {
    decoding = decoding.then(() => addFrame(id, url)).catch((error) => console.error("frame", error));
  }
  clip.received = stream.frames.length;
}

async function onPicture() {
  const wanted = props.picture;
  clip = { id: "", fps: 16, total: 1, received: 0, frames: [] };
  showPicture();
  if (!wanted) picture = null;
  else {
    const image = new Image();
    image.src = wanted.src;
    await image.decode();
    if (wanted.src !== props.picture?.src) return; // another one came meanwhile
    picture = image;
    stage.style.setProperty("--aspect", wanted.width / wanted.height);
  }
  fitCanvas();
  refresh();
}

function onValue() {
  active.clear();
  try {
    paths = JSON.parse(props.value || '{"paths": []}').paths;
  } catch (error) {
    paths = [];
  }
  paths.forEach((path, index) => (path.color = path.color || COLOURS[index % COLOURS.length]));
  refresh();
}

watch("picture", onPicture);
watch("value", onValue);
watch("stream", onStream);
new ResizeObserver(fitCanvas).observe(stage);
onPicture();
onValue();
