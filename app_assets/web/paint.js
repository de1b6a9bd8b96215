/* Everything that is painted over the picture: paths, pins, points, the pointer's lead. Shapes tell kinds apart. */

import { placeAt } from "./tracks.js";

const SHADOW = "rgba(0,0,0,0.6)";

/* As many pixels as the screen gives the canvas. */
export function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * scale)));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

export class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
  }

  get unit() {
    return Math.max(this.canvas.width, this.canvas.height) / 100;
  }

  at([x, y]) {
    return [x * this.canvas.width, y * this.canvas.height];
  }

  picture(image) {
    const { width, height } = this.canvas;
    this.pen.imageSmoothingQuality = "high";
    if (image) this.pen.drawImage(image, 0, 0, width, height);
    else this.pen.clearRect(0, 0, width, height);
  }

  line(points, colour, thickness, dash = []) {
    const { pen } = this;
    for (const [stroke, extra] of [[SHADOW, 0.6], [colour, 0]]) {
      pen.beginPath();
      points.map((point) => this.at(point)).forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      Object.assign(pen, { strokeStyle: stroke, lineWidth: this.unit * (thickness + extra), lineCap: "round", lineJoin: "round" });
      pen.setLineDash(dash.map((length) => length * this.unit));
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  disc(place, radius, fill, edge = "#fff") {
    const [x, y] = this.at(place);
    this.pen.beginPath();
    this.pen.arc(x, y, radius * this.unit, 0, 2 * Math.PI);
    this.finish(fill, edge, radius);
  }

  square(place, radius, fill, edge = "#fff") {
    const [x, y] = this.at(place);
    const reach = radius * this.unit;
    this.pen.beginPath();
    this.pen.rect(x - reach, y - reach, 2 * reach, 2 * reach);
    this.finish(fill, edge, radius);
  }

  finish(fill, edge, radius) {
    Object.assign(this.pen, { fillStyle: fill, strokeStyle: edge, lineWidth: this.unit * radius * 0.3 });
    this.pen.fill();
    this.pen.stroke();
  }

  arrow(points, colour) {
    const { pen, unit } = this;
    const [x, y] = this.at(points[points.length - 1]);
    const before = points.map((point) => this.at(point)).reverse();
    const [a, b] = before.find(([px, py]) => Math.hypot(x - px, y - py) > unit * 2) || before[before.length - 1];
    pen.save();
    pen.translate(x, y);
    pen.rotate(Math.atan2(y - b, x - a));
    pen.beginPath();
    pen.moveTo(unit * 1.8, 0);
    pen.lineTo(-unit * 1.8, unit * 1.8);
    pen.lineTo(-unit * 1.8, -unit * 1.8);
    pen.closePath();
    this.finish(colour, SHADOW, 1);
    pen.restore();
  }

  label(place, text, size = 2.6, fill = "#fff") {
    const [x, y] = this.at(place);
    const { pen, unit } = this;
    Object.assign(pen, { font: `700 ${unit * size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle" });
    Object.assign(pen, { strokeStyle: SHADOW, lineWidth: unit * 0.6, fillStyle: fill });
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  }

  /* A track of the plan: a path with an arrow, or the square of a pin. `frame` is what is on the screen. */
  track(track, number, frame, selected) {
    const points = track.points.map(({ x, y }) => [x, y]);
    const colour = track.color || "#4da3ff";
    if (points.length === 1) this.square(points[0], selected?.id === track.id ? 2 : 1.3, colour);
    else {
      this.line(points, colour, 0.9);
      this.arrow(points, colour);
      this.disc(points[0], 2, colour);
      this.label(points[0], String(number));
      const now = frame > 0 ? placeAt(track, frame) : null;
      if (now) this.disc(now, 1.5, "#fff", colour);
    }
    if (selected?.id !== track.id) return;
    points.forEach((point, i) => this.disc(point, i === selected.index ? 1.7 : 1, i === selected.index ? "#fff" : colour, "#000"));
  }

  /* A path that is being drawn. */
  stroke(points, colour) {
    if (points.length > 1) this.line(points, colour, 0.9);
    this.disc(points[0], 1.6, colour);
  }

  /* Where the video has followed the pointer to (`head`), and the pointer, which it will follow from `frame` on. */
  lead(head, pointer, frame) {
    if (head) {
      this.line([head, pointer], "#34e07c", 0.5, [1.6, 1.4]);
      this.disc(head, 1.5, "#34e07c", "#073");
    }
    this.disc(pointer, 2.2, "rgba(52,224,124,0.35)", "#34e07c");
    const high = pointer[1] < 0.12;
    this.label([Math.min(0.86, Math.max(0.14, pointer[0])), pointer[1] + (high ? 0.07 : -0.06)], `from frame ${frame}`, 3);
  }

  /* What is taken along from `place` on: all within the ring by more than a half. `radius` is in pixels. */
  ring(place, radius) {
    const { pen, unit } = this;
    const [x, y] = this.at(place);
    for (const [stroke, width] of [[SHADOW, 0.6], ["#fff", 0.25]]) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      Object.assign(pen, { strokeStyle: stroke, lineWidth: width * unit });
      pen.stroke();
    }
  }

  /* A piece of the picture at `place`, as the model is shown it. */
  piece({ image, reach }, place, force) {
    const [x, y] = this.at(place);
    this.pen.globalAlpha = force;
    this.pen.drawImage(image, x - reach, y - reach);
    this.pen.globalAlpha = 1;
  }

  /* Where the tracks of the video are held now. */
  held(place) {
    this.disc(place, 1.3, "rgba(0,0,0,0.25)", "#34e07c");
  }

  cross(place) {
    const reach = (3 * this.unit) / this.canvas.width;
    const tall = (3 * this.unit) / this.canvas.height;
    this.line([[place[0] - reach, place[1]], [place[0] + reach, place[1]]], "#fff", 0.4);
    this.line([[place[0], place[1] - tall], [place[0], place[1] + tall]], "#fff", 0.4);
  }
}

/* The timeline's bars: what is made, each track's span, and the frame that is shown. */
export function paintBars(canvas, file, film, frame, total) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const style = getComputedStyle(canvas);
  pen.clearRect(0, 0, width, height);
  const x = (f) => (total > 1 ? (f / (total - 1)) * width : 0);
  pen.fillStyle = style.getPropertyValue("--made");
  if (film?.length) pen.fillRect(0, 0, Math.max(2, x(film.length - 1)), 4);
  const rows = file.tracks.filter((track) => track.points.length > 1);
  const step = Math.min(5, (height - 6) / Math.max(1, rows.length));
  rows.forEach((track, i) => {
    const [a, b] = [track.points[0].f, track.points[track.points.length - 1].f];
    pen.fillStyle = track.color || "#4da3ff";
    pen.fillRect(x(a), 6 + i * step, Math.max(2, x(b) - x(a)), Math.max(1, step - 1.5));
  });
  pen.fillStyle = style.getPropertyValue("--head");
  pen.fillRect(Math.max(0, x(Math.max(0, frame)) - 1), 0, 2, height);
}
