/* What a visitor takes home: takes to compare, video and tracks, a link, the three pictures side by side. */

import { Painter, fit } from "./paint.js";
import { toLink } from "./wire.js";

const $ = (id) => document.getElementById(id);

export class Results {
  constructor(page) {
    this.page = page;
    this.urls = [];
    this.listed = "";
    this.sides = ["side-picture", "side-paths", "side-video"].map((id) => new Painter($(id)));
    this.other = new Painter($("other"));
    $("save").addEventListener("click", () => {
      page.say("Writing the video…");
      page.studio.save($("save-paths").checked);
    });
    $("export").addEventListener("click", () => this.exportDrawing());
    $("import").addEventListener("change", async (event) => {
      const files = [...event.target.files];
      if (files.length) await page.importFile(files);
      event.target.value = "";
    });
    $("share").addEventListener("click", () => this.share());
    $("side").addEventListener("click", () => {
      const on = $("sides").hidden;
      $("sides").hidden = !on;
      $("side").setAttribute("aria-pressed", String(on));
      this.paint();
    });
  }

  /* Files from the server: links to save them by. */
  received(header, parts) {
    const stem = `ardrag-${header.seed}`;
    const types = ["video/mp4", "application/json"];
    this.clear();
    const links = parts.map((part, i) => this.link(new Blob([part], { type: types[i] }), `${stem}.${header.names[i]}`));
    $("downloads").replaceChildren(...links);
    this.page.say("Video and tracks are ready to be saved.");
  }

  link(blob, name) {
    const url = URL.createObjectURL(blob);
    this.urls.push(url);
    return Object.assign(document.createElement("a"), { href: url, download: name, textContent: `${name} (${Math.ceil(blob.size / 1024)} kB)` });
  }

  clear() {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
    $("downloads").replaceChildren();
  }

  exportDrawing() {
    const { page } = this;
    const file = { ...(page.planOf(page.file.num_frames) || page.file), source: { tool: "ardrag-pad", ...choices() } };
    this.clear();
    const link = this.link(new Blob([JSON.stringify(file)], { type: "application/json" }), "drawing.tracks.json");
    $("downloads").replaceChildren(link);
    link.click();
  }

  async share() {
    const { page } = this;
    const example = page.settings.examples.find((one) => one.picture === page.picture?.picture)?.picture;
    const shared = { ...choices(), tracks: page.file, example };
    const link = `${location.origin}${location.pathname}#d=${await toLink(shared)}`;
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      page.say(example ? "The link is copied." : "The link is copied. It carries the drawing, not your picture.");
    } catch {
      page.say("The link is in the address bar.");
    }
  }

  refresh() {
    const { studio } = this.page;
    const film = studio.film;
    $("save").disabled = !film || film.lost || !film.length;
    $("side").disabled = !film?.length;
    const films = [...studio.films.values()];
    const state = JSON.stringify([films.map((one) => one.take), film?.take, this.page.compared]);
    if (state === this.listed) return;
    this.listed = state;
    $("takes").hidden = films.length < 2;
    if (!studio.films.has(this.page.compared)) this.page.compared = null;
    $("takes").replaceChildren(...films.flatMap((one) => this.buttons(one)));
    $("other").hidden = this.page.compared === null;
    this.page.canvas.fit();
  }

  buttons(film) {
    const { page } = this;
    const show = Object.assign(document.createElement("button"), { type: "button", textContent: `Take ${film.take}` });
    show.setAttribute("aria-pressed", String(film === page.studio.film));
    show.addEventListener("click", () => page.studio.choose(film.take));
    if (film === page.studio.film) return [show];
    const on = page.compared === film.take;
    const beside = Object.assign(document.createElement("button"), { type: "button", textContent: `${on ? "Hide" : "Compare"} ${film.take}` });
    beside.addEventListener("click", () => {
      page.compared = on ? null : film.take;
      page.refresh();
    });
    return [show, beside];
  }

  paint() {
    const { page } = this;
    const film = page.studio.films.get(page.compared);
    if (film) {
      fit(this.other.canvas);
      this.other.picture(page.shown(film, Math.max(0, page.frame)));
    }
    if ($("sides").hidden || !page.picture) return;
    this.sides.forEach((painter) => fit(painter.canvas));
    const [picture, paths, video] = this.sides;
    picture.picture(page.picture.image);
    paths.picture(page.picture.image);
    page.file.tracks.forEach((track, i) => paths.track(track, i + 1, 0, null));
    const applied = page.studio.film?.places || [];
    const count = applied[0]?.length || 0;
    for (let p = page.file.tracks.length; p < count; p += 1) {
      const way = applied.map((row) => row[p]).filter((place) => place?.[2]).map(([x, y]) => [x, y]);
      if (way.length > 1) paths.line(way, "#34e07c", 0.9);
    }
    video.picture(page.shown());
  }
}

/* What goes with a drawing so that it can be made again. */
function choices() {
  return { prompt: $("prompt").value, seed: Number($("seed").value) || 0, steps: Number($("steps").value) };
}
