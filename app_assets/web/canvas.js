/* The one canvas: pointers and keys on it, and what is painted over the picture. */

import { Fingers, HALF, cutPiece, notchesOf, spread } from "./brush.js";
import { fit } from "./paint.js";
import { addPath, addPin, freeColour, hit, movePoint, placeAt, removePoint, removeTrack } from "./tracks.js";

const REACH = 0.05;
const KEY_POINTER = -1;
const SEND_MS = 16;
const KEY_STEP_MS = 60;
const PLAIN_SCALE = 4;
const ARRIVED = 0.02;
const LINGER_MS = 1500;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const clamp = (value) => Math.min(1, Math.max(0, value));

/* A mouse has no pressure; screens that cannot measure it say 0 or 0.5. */
export function forceOf(event) {
  const measured = event.pointerType !== "mouse" && event.pressure > 0 && event.pressure !== 0.5;
  return measured ? Math.min(event.pressure, 1) : 1;
}

/* A small video that is shown large says so: it is the model that is small, not the connection that is slow. */
export function scaleText(picture, width) {
  const times = picture ? width / picture.width : 1;
  if (times <= PLAIN_SCALE) return "";
  const size = `${Math.max(picture.width, picture.height)}-pixel model, shown ${times.toFixed(1)} times as large`;
  return `${size}. It moves what you drag and keeps the rest; larger ones need a GPU (app.py --model, docs/wan.md).`;
}

function sayScale(element, picture, width) {
  element.textContent = scaleText(picture, width);
  element.hidden = !element.textContent;
}

export class Canvas {
  constructor(page, element) {
    Object.assign(this, { page, element });
    this.strokes = new Map(); // pointer id -> rows [ms, x, y, force] of a path or a drag
    this.unsent = new Map(); // pointer id -> rows of a drag that the server has not heard
    this.released = [];
    this.grabbed = null; // point that is being moved
    this.cursor = null; // the keys' pointer
    this.hover = null; // where a mouse is that presses nothing
    this.pieces = new Map(); // pointer id -> what it takes along, until the video shows it
    this.fingers = new Fingers({
      press: (id, row) => this.down(id, row),
      sigma: () => page.brush.sigma,
      resize: (sigma) => page.brush.set(sigma),
    });
    this.keyTime = 0;
    this.lastSent = 0;
    this.listen();
    new ResizeObserver(() => this.fit()).observe(element);
  }

  fit() {
    fit(this.element);
    fit(document.getElementById("bars"));
    sayScale(document.getElementById("scale"), this.page.picture, this.element.clientWidth);
    this.page.painter && this.page.showFrame();
  }

  row(event) {
    const box = this.element.getBoundingClientRect();
    const x = clamp((event.clientX - box.left) / box.width);
    const y = clamp((event.clientY - box.top) / box.height);
    return [event.timeStamp, x, y, forceOf(event)];
  }

  listen() {
    const { element } = this;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.page.picture) return;
      event.preventDefault();
      element.focus({ preventScroll: true });
      element.setPointerCapture(event.pointerId);
      this.cursor = null;
      const touch = event.pointerType === "touch" && this.page.brush.offered;
      (touch ? this.fingers : this).down(event.pointerId, this.row(event));
    });
    element.addEventListener("pointermove", (event) => {
      this.point(event);
      if (this.fingers.move(event.pointerId, this.row(event)) || !this.strokes.has(event.pointerId)) return;
      const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      this.move(event.pointerId, (all.length ? all : [event]).map((one) => this.row(one)));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      element.addEventListener(name, (event) => {
        this.fingers.up(event.pointerId);
        this.up(event.pointerId, name === "pointerup" ? this.row(event) : null);
      });
    }
    element.addEventListener("pointerenter", () => this.prepare());
    element.addEventListener("pointerleave", (event) => this.point(event, true));
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("focus", () => this.page.showFrame());
    element.addEventListener("blur", () => this.letGo());
    element.addEventListener("keydown", (event) => this.key(event));
  }

  /* A pointer over the picture will soon press: let the server read picture and prompt now. */
  prepare() {
    const { studio, tool, picture } = this.page;
    if (!picture || tool !== "live" || studio.film || studio.pending) return;
    const order = this.page.order(true);
    if (order) studio.begin(order, true);
  }

  /* Where the brush's ring is to be painted. */
  point(event, gone = false) {
    if (event.pointerType === "touch" || !this.page.brush.offered) return;
    const [, x, y] = this.row(event);
    this.hover = gone ? null : [x, y];
    if (!this.strokes.size) this.page.showFrame();
  }

  /* The page scrolls until the canvas was pressed or chosen: who scrolls past it is not held up. */
  wheel(event) {
    if (!this.page.brush.offered || !this.page.picture || document.activeElement !== this.element) return;
    event.preventDefault();
    this.page.brush.step(notchesOf(event));
  }

  down(id, row) {
    const { page } = this;
    if (page.settings.control === "carried" && ["live", "path"].includes(page.tool)) {
      this.pieces.set(id, { ...cutPiece(page.shown(), [row[1], row[2]], page.brush.next, this.element), row });
    }
    const [, x, y] = row;
    if (page.tool === "live") {
      const order = page.order(true);
      if (!order || !page.studio.press(order)) return;
      page.problem("");
      this.strokes.set(id, [row]);
      this.unsent.set(id, [row]);
      this.send(true);
    } else if (page.tool === "path") this.strokes.set(id, [row]);
    else if (page.tool === "pin") page.draw(addPin(page.file, x, y, page.brush.said));
    else {
      page.selected = hit(page.file, x, y, REACH);
      if (page.selected) {
        this.grabbed = page.file;
        this.strokes.set(id, [row]);
      }
      page.refresh();
    }
    page.showFrame();
  }

  move(id, rows) {
    const stroke = this.strokes.get(id);
    const { page } = this;
    if (!stroke) return;
    stroke.push(...rows);
    if (this.grabbed && page.selected) {
      const [, x, y] = rows[rows.length - 1];
      page.history.value = movePoint(this.grabbed, page.selected.id, page.selected.index, x, y);
    } else if (page.tool === "live") {
      this.unsent.set(id, [...(this.unsent.get(id) || []), ...rows].slice(-512));
      this.send();
    }
    page.showFrame();
  }

  up(id, row = null) {
    const stroke = this.strokes.get(id);
    if (!stroke) return;
    const { page } = this;
    if (row) this.move(id, [[row[0], row[1], row[2], stroke[stroke.length - 1][3]]]);
    this.strokes.delete(id);
    this.drop(id, stroke[stroke.length - 1]);
    if (this.grabbed) {
      const moved = page.file;
      page.history.value = this.grabbed; // one step of undo for the whole move
      this.grabbed = null;
      page.draw(moved, page.selected);
    } else if (page.tool === "live") {
      this.released.push(id);
      this.send(true);
    } else if (page.tool === "path") {
      page.draw(addPath(page.file, stroke, document.getElementById("stretch").checked, page.brush.said));
    }
    page.refresh();
  }

  /* A piece that was let go of stays where it is until the video shows it there, or does not for long. */
  drop(id, row) {
    const piece = this.pieces.get(id);
    if (!piece) return;
    piece.row = row;
    setTimeout(() => this.pieces.get(id) === piece && this.pieces.delete(id) && this.page.showFrame(), LINGER_MS);
    if (this.page.tool !== "live") this.pieces.delete(id);
  }

  letGo() {
    this.fingers.letGo();
    for (const id of [...this.strokes.keys()]) this.up(id);
    this.page.painter && this.page.showFrame();
  }

  /* Tell the server where the pointers went, at most once a screen refresh. */
  send(now = false) {
    const time = performance.now();
    if (!now && time - this.lastSent < SEND_MS) return;
    this.lastSent = time;
    const pointers = [...this.unsent].filter(([, way]) => way.length).map(([id, way]) => ({ id, way, ...this.page.brush.said }));
    if (pointers.length || this.released.length) this.page.studio.drag(pointers, this.released);
    this.unsent.clear();
    this.released = [];
  }

  key(event) {
    const { page } = this;
    if (!page.picture) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "z" && event.key.toLowerCase() !== "y") return;
      page.step(event.shiftKey || event.key.toLowerCase() === "y" ? "redo" : "undo");
    } else if (event.key in ARROWS) this.arrow(ARROWS[event.key], event.shiftKey ? 0.08 : 0.02);
    else if (event.key === "Enter") this.enter();
    else if ("+=-".includes(event.key)) page.brush.step(event.key === "-" ? -1 : 1);
    else if (event.key === " ") page.studio.toggle();
    else if (event.key === "Escape") this.letGo();
    else if (event.key === "Delete" || event.key === "Backspace") this.remove();
    else return;
    event.preventDefault();
  }

  arrow([dx, dy], reach) {
    const { page } = this;
    if (page.tool === "edit" && page.selected) {
      const { id, index } = page.selected;
      const point = page.file.tracks.find((track) => track.id === id).points[index];
      page.draw(movePoint(page.file, id, index, point.x + dx * reach, point.y + dy * reach), page.selected);
      return;
    }
    const [x, y] = this.cursor || [0.5, 0.5];
    this.cursor = [clamp(x + dx * reach), clamp(y + dy * reach)];
    if (this.strokes.has(KEY_POINTER)) this.move(KEY_POINTER, [this.keyRow()]);
    else page.showFrame();
  }

  enter() {
    const { page } = this;
    this.cursor ||= [0.5, 0.5];
    if (this.strokes.has(KEY_POINTER)) this.up(KEY_POINTER, this.keyRow());
    else {
      this.down(KEY_POINTER, this.keyRow());
      if (page.tool === "path") page.say("Drawing: move with the arrow keys, end with Enter.");
    }
  }

  /* Keys have no speed of their own: each press counts the same. */
  keyRow() {
    this.keyTime += KEY_STEP_MS;
    return [this.keyTime, ...this.cursor, 1];
  }

  remove() {
    const { page } = this;
    const last = page.file.tracks[page.file.tracks.length - 1];
    if (page.selected) page.draw(removePoint(page.file, page.selected.id, page.selected.index));
    else if (last) page.draw(removeTrack(page.file, last.id));
  }

  paint() {
    const { page } = this;
    const { painter, studio } = page;
    painter.picture(page.shown());
    if (!page.picture) return;
    page.file.tracks.forEach((track, i) => painter.track(track, i + 1, page.frame, page.selected));
    const places = studio.film?.places[Math.max(0, page.frame)] || [];
    const planned = page.file.tracks.length;
    places.slice(planned).forEach(([x, y, seen]) => seen && painter.held([x, y]));
    this.paintPieces(places);
    for (const [id, rows] of this.strokes) this.paintStroke(id, rows, places);
    if (page.brush.offered) this.paintRing();
    if (this.cursor && document.activeElement === this.element) painter.cross(this.cursor);
  }

  /* What is taken along, under the pointer, where the video does not show it yet. */
  paintPieces(places) {
    const seen = places.filter((place) => place[2]);
    for (const [id, piece] of this.pieces) {
      const rows = this.strokes.get(id);
      const [, x, y, force] = rows ? rows[rows.length - 1] : piece.row;
      const arrived = nearest(seen, [x, y])?.distance < ARRIVED && this.page.tool === "live";
      if (!arrived) this.page.painter.piece(piece, [x, y], force);
      else if (!rows) this.pieces.delete(id);
    }
  }

  /* How much is taken along: round the pointer, or where the track is whose points are edited. */
  paintRing() {
    const { page, element } = this;
    const { track, sigma } = page.brush;
    const keys = document.activeElement === element ? this.cursor : null;
    const next = page.tool === "edit" ? null : this.hover || keys;
    const place = track ? placeAt(track, Math.max(track.points[0].f, page.frame)) : next;
    if (place) page.painter.ring(place, HALF * spread(sigma, element));
  }

  paintStroke(id, rows, places) {
    const { page } = this;
    const points = rows.map(([, x, y]) => [x, y]);
    if (page.tool === "path") page.painter.stroke(points, freeColour(page.file));
    if (page.tool !== "live") return;
    const pointer = points[points.length - 1];
    const seen = places.filter((place) => place[2]);
    const along = points.map((point) => nearest(seen, point)).filter(Boolean);
    const head = along.sort((a, b) => a.distance - b.distance)[0]?.place;
    page.painter.lead(head, pointer, studioNext(page.studio));
  }
}

function nearest(places, [x, y]) {
  let best = null;
  for (const place of places) {
    const distance = Math.hypot(place[0] - x, place[1] - y);
    if (!best || distance < best.distance) best = { distance, place: [place[0], place[1]] };
  }
  return best;
}

/* The first frame that what is said now can reach. */
function studioNext(studio) {
  return studio.film ? Math.max(1, studio.film.length) : 1;
}
