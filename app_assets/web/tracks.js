/* What is drawn: an `ardrag.tracks/v1` file, never changed in place. x and y are 0..1 of the canvas, f is a frame. */

export const SCHEMA = "ardrag.tracks/v1";
export const COLOURS = ["#4da3ff", "#ffb300", "#c77dff", "#00c2c7", "#ff7a59", "#8bd450"];
const TOLERANCE = 0.004;
const MAX_POINTS = 4096;
const PIN_DISTANCE = 0.22;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const tidy = (value, digits = 5) => Number(value.toFixed(digits));

export function emptyFile(numFrames, fps) {
  return { schema: SCHEMA, fps, num_frames: numFrames, defaults: { interp: "linear" }, tracks: [] };
}

/* Chosen files as one: Wan-Move's tracks.npy and visibility.npy follow one another, which the server knows. */
export function joined(files) {
  if (files.length === 1) return files[0];
  const parts = ["tracks.npy", "visibility.npy"].map((end) => files.find(({ name }) => name.endsWith(end)));
  if (files.length === 2 && parts.every(Boolean)) return new Blob(parts);
  throw new Error("tracks: choose one file, or a tracks.npy with its visibility.npy");
}

/* Drawn rows [ms, x, y, force] as points. `stretch`: over the whole clip; else in real time, at most the clip. */
export function timed(rows, numFrames, fps, stretch) {
  const origin = rows[0][0];
  const span = Math.max(...rows.map(([ms]) => ms)) - origin;
  const last = numFrames - 1;
  const frames = (span / 1000) * fps;
  const scale = span > 0 && (stretch || frames > last) ? last / span : fps / 1000;
  const points = [];
  for (const [ms, x, y, force] of rows) {
    const point = { f: tidy((ms - origin) * scale, 3), x: tidy(x), y: tidy(y), p: tidy(force, 3) };
    const before = points[points.length - 1];
    if (before && point.f <= before.f) points[points.length - 1] = { ...point, f: before.f };
    else points.push(point);
  }
  return points;
}

/* Ramer-Douglas-Peucker over time, place and force: few points that still tell where the path is at every frame. */
export function simplify(points, numFrames, tolerance = TOLERANCE) {
  const keep = new Array(points.length).fill(false);
  keep[0] = keep[points.length - 1] = true;
  const open = [[0, points.length - 1]];
  while (open.length) {
    const [a, b] = open.pop();
    const [from, to] = [points[a], points[b]];
    let worst = 0;
    let at = -1;
    for (let i = a + 1; i < b; i += 1) {
      const share = to.f > from.f ? (points[i].f - from.f) / (to.f - from.f) : 0;
      const off = ["x", "y"].map((k) => points[i][k] - from[k] - share * (to[k] - from[k]));
      const pressed = 0.1 * Math.abs(points[i].p - from.p - share * (to.p - from.p));
      const distance = Math.max(Math.hypot(...off), pressed);
      if (distance > worst) [worst, at] = [distance, i];
    }
    if (worst <= tolerance || at < 0) continue;
    keep[at] = true;
    open.push([a, at], [at, b]);
  }
  return points.filter((_, i) => keep[i]).slice(0, MAX_POINTS);
}

export function newId(file, prefix) {
  const used = new Set(file.tracks.map((track) => track.id));
  for (let n = 1; ; n += 1) if (!used.has(`${prefix}${n}`)) return `${prefix}${n}`;
}

export function freeColour(file) {
  const used = file.tracks.map((track) => track.color);
  return COLOURS.find((colour) => !used.includes(colour)) || COLOURS[file.tracks.length % COLOURS.length];
}

/* Every track in a colour of its own, where it has none. */
export function coloured(file) {
  const tracks = [];
  for (const track of file.tracks) tracks.push(track.color ? track : { ...track, color: freeColour({ tracks }) });
  return { ...file, tracks };
}

export function withTrack(file, track) {
  return { ...file, tracks: [...file.tracks, track] };
}

/* `rest` goes with the new track: a brush, if it has one. */
export function addPath(file, rows, stretch, rest = {}) {
  const points = simplify(timed(rows, file.num_frames, file.fps, stretch), file.num_frames);
  if (points.length < 2) return addPin(file, rows[0][1], rows[0][2], rest);
  return withTrack(file, { id: newId(file, "t"), kind: "drag", color: freeColour(file), ...rest, points });
}

const GROUND = 0; /* the sigma of a pin that holds no thing, but what lies behind all things */

export function addPin(file, x, y, rest = {}) {
  const point = { f: 0, x: tidy(x), y: tidy(y) };
  return withTrack(file, { id: newId(file, "pin"), kind: "static", color: "#ff3b5c", ...rest, points: [point] });
}

/* Pins of the ground (`ardrag.tracks.schema.GROUND`) on a grid, except where something is drawn: the camera stands still. */
export function pinBackground(file, columns = 4, rows = 4) {
  const drawn = file.tracks.flatMap((track) => track.points);
  let next = file;
  for (let j = 0; j < rows; j += 1) {
    for (let i = 0; i < columns; i += 1) {
      const [x, y] = [(i + 0.5) / columns, (j + 0.5) / rows];
      if (drawn.every((point) => Math.hypot(point.x - x, point.y - y) > PIN_DISTANCE)) next = addPin(next, x, y, { sigma: GROUND });
    }
  }
  return next;
}

/* How wide a piece the track takes along. */
export function withSigma(file, id, sigma) {
  return { ...file, tracks: file.tracks.map((track) => (track.id === id ? { ...track, sigma } : track)) };
}

export function removeTrack(file, id) {
  const tracks = file.tracks.filter((track) => track.id !== id);
  if (!file.camera) return { ...file, tracks };
  const exclude = (file.camera.exclude || []).filter((name) => name !== id);
  return { ...file, tracks, camera: { ...file.camera, exclude } };
}

export function replacePoints(file, id, change) {
  const tracks = file.tracks.map((track) => (track.id === id ? { ...track, points: change(track.points) } : track));
  return { ...file, tracks };
}

export function movePoint(file, id, index, x, y) {
  const place = { x: tidy(clamp(x, 0, 1)), y: tidy(clamp(y, 0, 1)) };
  return replacePoints(file, id, (points) => points.map((point, i) => (i === index ? { ...point, ...place } : point)));
}

/* Another frame for one point, kept between its neighbours. */
export function movePointInTime(file, id, index, f) {
  return replacePoints(file, id, (points) => {
    const low = index ? points[index - 1].f + 0.1 : 0;
    const high = index < points.length - 1 ? points[index + 1].f - 0.1 : file.num_frames - 1;
    return points.map((point, i) => (i === index ? { ...point, f: tidy(clamp(f, low, Math.max(low, high)), 3) } : point));
  });
}

export function removePoint(file, id, index) {
  const track = file.tracks.find((one) => one.id === id);
  if (!track || track.points.length <= 1) return removeTrack(file, id);
  const points = track.points.filter((_, i) => i !== index);
  const kind = points.length === 1 ? "static" : track.kind;
  return { ...file, tracks: file.tracks.map((one) => (one.id === id ? { ...one, kind, points } : one)) };
}

/* A new point half way between two. */
export function insertPoint(file, id, index) {
  return replacePoints(file, id, (points) => {
    const [a, b] = [points[index], points[index + 1]];
    if (!b) return points;
    const mid = { f: tidy((a.f + b.f) / 2, 3), x: tidy((a.x + b.x) / 2), y: tidy((a.y + b.y) / 2) };
    const force = ((a.p ?? 1) + (b.p ?? 1)) / 2;
    return [...points.slice(0, index + 1), { ...mid, p: tidy(force, 3) }, ...points.slice(index + 1)];
  });
}

/* One track from frame `start` to frame `end`, its speed in proportion. */
export function retimeTrack(file, id, start, end) {
  const last = file.num_frames - 1;
  const from = clamp(start, 0, last);
  const to = clamp(end, from, last);
  return replacePoints(file, id, (points) => {
    if (points.length < 2) return points.map((point) => ({ ...point, f: from }));
    if (to - from < 0.1 * points.length) return points;
    const [a, b] = [points[0].f, points[points.length - 1].f];
    return points.map((point) => ({ ...point, f: tidy(from + ((point.f - a) / (b - a)) * (to - from), 3) }));
  });
}

/* Everything stretched or squeezed to a clip of `numFrames`. */
export function retime(file, numFrames) {
  if (numFrames === file.num_frames) return file;
  const scale = (numFrames - 1) / (file.num_frames - 1);
  const move = (item) => ({ ...item, f: tidy(item.f * scale, 3) });
  const span = (track) => Object.fromEntries(["start", "end"].filter((k) => k in track).map((k) => [k, track[k] * scale]));
  const tracks = file.tracks.map((track) => ({ ...track, ...span(track), points: track.points.map(move) }));
  const camera = file.camera ? { camera: { ...file.camera, keys: file.camera.keys.map(move) } } : {};
  return { ...file, num_frames: numFrames, tracks, ...camera };
}

/* The camera at frame f; null removes the key. Drawn tracks are kept out of the camera's grid. */
export function withCameraKey(file, f, key) {
  const keys = (file.camera?.keys || []).filter((one) => Math.abs(one.f - f) > 0.05);
  if (key) keys.push({ f, ...key });
  keys.sort((a, b) => a.f - b.f);
  const { camera: _, ...rest } = file;
  if (!keys.length) return rest;
  const exclude = file.tracks.filter((track) => track.kind !== "static").map((track) => track.id);
  return { ...rest, camera: { grid: [5, 4], interp: "smooth", ...file.camera, exclude, keys } };
}

/* Where a track is at frame f (linear between points, held at the ends), or null before it begins. */
export function placeAt(track, f) {
  const points = track.points;
  if (f < points[0].f) return null;
  const next = points.findIndex((point) => point.f >= f);
  if (next < 0) return [points[points.length - 1].x, points[points.length - 1].y];
  if (next === 0) return [points[0].x, points[0].y];
  const [a, b] = [points[next - 1], points[next]];
  const share = (f - a.f) / (b.f - a.f);
  return [a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)];
}

/* Mean speed along a track in canvas widths per second. */
export function speed(track, fps) {
  const points = track.points;
  const frames = points[points.length - 1].f - points[0].f;
  if (frames <= 0) return 0;
  const steps = points.slice(1).map((point, i) => Math.hypot(point.x - points[i].x, point.y - points[i].y));
  return (steps.reduce((sum, step) => sum + step, 0) / frames) * fps;
}

/* The nearest point within `reach`: {id, index}, or null. */
export function hit(file, x, y, reach) {
  let best = null;
  let nearest = reach;
  for (const track of file.tracks) {
    track.points.forEach((point, index) => {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance <= nearest) [nearest, best] = [distance, { id: track.id, index }];
    });
  }
  return best;
}

const alike = (one, other) => Math.abs(Math.log((one.width * other.height) / (one.height * other.width))) < 0.0101;

/* A file as it lies on the picture that is shown, which is the middle of the one that was chosen (`picture.own`). Tracks
   are of the whole picture, unless their canvas says that it was cut to that shape before. */
export function onPicture(file, picture) {
  const { own } = picture;
  const canvas = file.canvas?.width && file.canvas?.height ? file.canvas : null;
  if (alike(own, picture) || (canvas && (canvas.fit === "cover" || alike(canvas, picture)))) return file;
  if (canvas && !alike(canvas, own)) {
    throw new Error(`canvas: drawn on ${canvas.width} x ${canvas.height}, a picture of another shape; choose that picture first`);
  }
  if (file.camera) throw new Error("camera: its keys are of the whole picture, which is cut here; remove them and set them anew");
  const wide = Math.min(1, (own.height * picture.width) / (own.width * picture.height));
  const high = Math.min(1, (own.width * picture.height) / (own.height * picture.width));
  const move = (p) => ({ ...p, x: (p.x - (1 - wide) / 2) / wide, y: (p.y - (1 - high) / 2) / high });
  const moved = (entry) => ({ ...entry, points: (entry.points || []).map(move) });
  const edits = file.edits ? { edits: file.edits.map(moved) } : {};
  const shown = { width: picture.width, height: picture.height, fit: "cover" };
  return { ...file, tracks: file.tracks.map(moved), ...edits, canvas: shown };
}

/* Text of a track file as a file; throws an Error that says what is wrong. The server checks every field again. */
export function readFile(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("tracks: this file is not JSON; choose a .tracks.json file");
  }
  if (file?.schema !== SCHEMA) throw new Error(`tracks: schema is ${file?.schema ?? "missing"}; this page reads ${SCHEMA}`);
  const whole = Number.isInteger(file.num_frames) && file.num_frames >= 1;
  const listed = Array.isArray(file.tracks) && file.tracks.every((track) => Array.isArray(track?.points) && track.points.length);
  if (!whole || !listed) throw new Error("tracks: num_frames or the points of a track are missing; export it again");
  const finite = file.tracks.every((t) => t.points.every((p) => [p.f, p.x, p.y].every(Number.isFinite)));
  if (!finite) throw new Error("tracks: a point lacks a finite f, x or y; export it again");
  return file;
}

/* Undo and redo over values that are never changed in place. */
export class History {
  constructor(value) {
    this.value = value;
    this.past = [];
    this.future = [];
  }

  set(value) {
    if (value === this.value) return;
    this.past.push(this.value);
    if (this.past.length > 200) this.past.shift();
    this.future = [];
    this.value = value;
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.value);
    this.value = this.past.pop();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.value);
    this.value = this.future.pop();
  }
}
