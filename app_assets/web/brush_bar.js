/* The brush's slider, and whose brush it is: that of the track whose points are edited, or the next piece's. */

import { inReach, stepped } from "./brush.js";
import { withSigma } from "./tracks.js";

const SETTLE_MS = 400;
const $ = (id) => document.getElementById(id);

export class BrushBar {
  constructor(page) {
    this.page = page;
    this.usual = page.settings.brush; // null: the model is shown no pieces
    this.next = this.usual;
    this.going = null; // {before, after}: the drawing round a change that goes on
    for (const id of ["brush-bar", "brush-help", "track-brush-field"]) $(id).hidden = !this.offered;
    $("brush").addEventListener("input", (event) => this.set(Number(event.target.value) / 100));
    $("brush").addEventListener("change", () => this.settle());
  }

  get offered() {
    return this.usual !== null;
  }

  get track() {
    return this.page.tool === "edit" ? this.page.panel.track : undefined;
  }

  get sigma() {
    return this.track ? this.of(this.track) : this.next;
  }

  of(track) {
    return track.sigma ?? this.page.file.defaults?.sigma ?? this.usual;
  }

  /* What the server is told of a press, and a file of a track: nothing where it is the usual brush. */
  get said() {
    return this.offered && this.next !== this.usual ? { sigma: this.next } : {};
  }

  step(notches) {
    if (this.offered) this.set(stepped(this.sigma, notches));
  }

  /* A change may go on: a track's is one step of undo, and is heard by the server, once it rests. */
  set(sigma) {
    const { page, track } = this;
    if (track) {
      const before = this.going?.after === page.file ? this.going.before : page.file;
      page.history.value = withSigma(page.file, track.id, inReach(sigma));
      const going = { before, after: page.file };
      this.going = going;
      setTimeout(() => this.going === going && this.settle(), SETTLE_MS);
    } else this.next = inReach(sigma);
    page.refresh();
  }

  settle() {
    const { page, going } = this;
    this.going = null;
    if (!going || going.after !== page.file) return;
    page.history.value = going.before;
    page.draw(going.after, page.selected);
  }

  refresh() {
    if (!this.offered) return;
    const percent = 100 * this.sigma;
    $("brush-name").textContent = this.track ? "Brush of this track" : "Brush";
    $("brush").value = percent;
    $("brush-size").textContent = `${Number(percent.toFixed(1))} %`;
    $("brush").setAttribute("aria-valuetext", `${Number(percent.toFixed(1))} percent of the picture`);
  }
}
