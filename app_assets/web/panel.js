/* The drawing panel: list of tracks, the selected one in numbers, the camera. */

import { inReach } from "./brush.js";
import { emptyFile, insertPoint, movePoint, movePointInTime, pinBackground, removePoint, removeTrack, retimeTrack, speed, withCameraKey, withSigma } from "./tracks.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["track-start", "track-end", "point-f", "point-x", "point-y", "track-brush"];

export class Panel {
  constructor(page) {
    this.page = page;
    this.listed = null;
    $("undo").addEventListener("click", () => page.step("undo"));
    $("redo").addEventListener("click", () => page.step("redo"));
    $("clear").addEventListener("click", () => page.draw(emptyFile(page.file.num_frames, page.file.fps)));
    $("pin-background").addEventListener("click", () => page.draw(pinBackground(page.file)));
    $("point-add").addEventListener("click", () => this.change((file, { id, index }) => insertPoint(file, id, index)));
    $("point-remove").addEventListener("click", () => this.drop((file, { id, index }) => removePoint(file, id, index)));
    $("track-remove").addEventListener("click", () => this.drop((file, { id }) => removeTrack(file, id)));
    for (const name of NUMBERS) $(name).addEventListener("change", () => this.typed(name));
    $("key-set").addEventListener("click", () => this.setKey());
    $("key-clear").addEventListener("click", () => page.draw((({ camera: _, ...rest }) => rest)(page.file)));
  }

  get track() {
    return this.page.file.tracks.find((track) => track.id === this.page.selected?.id);
  }

  change(edit) {
    const { page } = this;
    if (this.track) page.draw(edit(page.file, page.selected), page.selected);
  }

  drop(edit) {
    const { page } = this;
    if (this.track) page.draw(edit(page.file, page.selected));
  }

  typed(name) {
    const value = Number($(name).value);
    if ($(name).value === "" || !Number.isFinite(value)) return this.refresh(true);
    const point = this.track?.points[this.page.selected.index];
    if (!point) return null;
    return this.change((file, { id, index }) => {
      if (name === "track-start") return retimeTrack(file, id, value, Number($("track-end").value));
      if (name === "track-end") return retimeTrack(file, id, Number($("track-start").value), value);
      if (name === "track-brush") return withSigma(file, id, inReach(value / 100));
      if (name === "point-f") return movePointInTime(file, id, index, value);
      return movePoint(file, id, index, ...(name === "point-x" ? [value / 100, point.y] : [point.x, value / 100]));
    });
  }

  setKey() {
    const { page } = this;
    const [f, right, down, zoom, roll] = ["key-f", "pan-x", "pan-y", "zoom", "roll"].map((id) => Number($(id).value));
    if (![f, right, down, zoom, roll].every(Number.isFinite) || zoom <= 0) return page.problem("camera: type numbers; zoom is above 0");
    if (f < 0 || f > page.file.num_frames - 1) return page.problem(`camera: frame ${f} is not within 0 to ${page.file.num_frames - 1}`);
    page.problem("");
    let file = page.file;
    if (!file.camera && f > 0) file = withCameraKey(file, 0, { pan: [0, 0], zoom: 1, roll: 0 });
    return page.draw(withCameraKey(file, f, { pan: [right / 100, down / 100], zoom, roll }));
  }

  refresh(force = false) {
    const { page } = this;
    $("undo").disabled = !page.history.past.length;
    $("redo").disabled = !page.history.future.length;
    $("clear").disabled = !page.file.tracks.length && !page.file.camera;
    const state = JSON.stringify([page.file.tracks.map((track) => track.id), page.selected]);
    if (this.listed === page.file && this.state === state && !force) return;
    [this.listed, this.state] = [page.file, state];
    this.list();
    this.numbers();
    const keys = page.file.camera?.keys || [];
    $("key-clear").disabled = !keys.length;
    $("keys").replaceChildren(...keys.map((key) => text("li", keyText(key))));
  }

  list() {
    const { page } = this;
    const rows = page.file.tracks.map((track, i) => {
      const row = document.createElement("li");
      const button = document.createElement("button");
      const dot = document.createElement("span");
      dot.className = track.points.length > 1 ? "dot" : "dot pin";
      dot.style.background = track.color || "#4da3ff";
      button.type = "button";
      button.setAttribute("aria-pressed", String(page.selected?.id === track.id));
      button.append(dot, describe(track, i + 1, page.file.fps));
      button.addEventListener("click", () => {
        page.selected = { id: track.id, index: 0 };
        page.refresh();
        document.querySelector("#tracks [aria-pressed=true]")?.focus();
      });
      row.append(button);
      return row;
    });
    $("tracks").replaceChildren(...rows);
  }

  numbers() {
    const { track } = this;
    $("selected").hidden = !track;
    if (!track) return;
    const point = track.points[this.page.selected.index];
    const last = track.points[track.points.length - 1];
    const values = [track.points[0].f, last.f, point.f, point.x * 100, point.y * 100, 100 * this.page.brush.of(track)];
    NUMBERS.forEach((name, i) => ($(name).value = Number(values[i].toFixed(1))));
    $("point-add").disabled = this.page.selected.index >= track.points.length - 1;
  }
}

function text(tag, content) {
  return Object.assign(document.createElement(tag), { textContent: content });
}

export function describe(track, number, fps) {
  if (track.points.length === 1) return `${number}. pin`;
  const [a, b] = [track.points[0].f, track.points[track.points.length - 1].f].map((f) => Math.round(f));
  return `${number}. path, ${track.points.length} points, frames ${a} to ${b}, ${Math.round(100 * speed(track, fps))} %/s`;
}

function keyText({ f, pan = [0, 0], zoom = 1, roll = 0 }) {
  return `frame ${f}: right ${Math.round(100 * pan[0])} %, down ${Math.round(100 * pan[1])} %, zoom ${zoom}, roll ${roll}°`;
}
