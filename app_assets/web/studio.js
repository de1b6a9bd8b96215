/* Takes and what is said to the server about them. No page elements here: `tell` says what changed. */

import { Film, Playhead, latentOf } from "./film.js";

/* Frames beyond the screen at which a press no longer waits for them but branches off where the visitor is. */
const FAR_AHEAD = 13;

export class Studio {
  /* `open(receive, changed)` gives a link {send, rtt}; `decode` makes a picture of bytes; `tell(event, detail)`. */
  constructor({ open, decode, tell, fps, factor, now }) {
    Object.assign(this, { open, decode, tell, fps, factor, now });
    this.link = null;
    this.films = new Map();
    this.film = null;
    this.playhead = new Playhead(fps);
    this.pending = null; // the start that has not been answered
    this.queued = []; // what is to be said once it is
    this.seq = 0;
    this.pressedAt = null;
    this.waitFor = null; // frame that shows the first effect of the last press
    this.rate = { frames: 0, since: 0 };
    this.stats = { first: null, fps: null, lag: null };
  }

  async connected() {
    if (this.link) return this.link;
    this.opening ||= this.open(
      (header, parts) => this.receive(header, parts),
      (open, text) => {
        if (open) return;
        this.link = null;
        this.opening = null;
        this.pending = null;
        this.films.forEach((film) => (film.lost = true));
        if (text) this.tell("lost", text);
      },
    ).then((link) => (this.link = link));
    return this.opening;
  }

  async say(message) {
    (await this.connected()).send(message);
  }

  /* Begin a take; what is said to "the current take" until the server answers is kept and said then. */
  begin(settings, paced) {
    const key = JSON.stringify({ ...settings, paced });
    if (this.pending?.key === key) return;
    this.pending = { key, paced, at: this.now() };
    this.queued = [];
    this.film = null;
    this.playhead.pause();
    this.playhead.seek(-1);
    this.stats = { first: null, fps: null, lag: null };
    this.say({ type: "start", ...settings, paced }).catch((error) => {
      this.pending = null;
      this.tell("error", error.message);
    });
    this.tell("takes");
  }

  toTake(message) {
    if (this.pending) this.queued.push(message);
    else if (this.film && !this.film.lost) this.say({ ...message, take: this.film.take });
  }

  /* A press on the canvas in the live tool: on the take on the screen, or a new one with `settings`. */
  press(settings) {
    this.pressedAt = this.now();
    const film = this.film;
    const fresh = JSON.stringify({ ...settings, paced: true });
    if (this.pending) {
      if (this.pending.key !== fresh) this.begin(settings, true);
    } else if (!film || film.lost || (film.length === 0 && film.key !== fresh)) this.begin(settings, true);
    else if (film.length && (film.length - 1 - this.playhead.frame >= FAR_AHEAD || (film.done && !this.atEnd))) this.branch();
    else if (film.done) return this.tell("error", "This take is full. Go back on the timeline, or start a new one.");
    this.playhead.playing || this.playhead.play(this.now());
    return true;
  }

  /* A clip is asked for or being made. */
  get busy() {
    const film = this.film;
    return this.pending !== null || Boolean(film && !film.paced && !film.done && !film.lost);
  }

  /* The picture moves, or will as soon as the server sends more. */
  get moving() {
    return this.playhead.playing && (!this.atEnd || Boolean(this.film?.running) || this.busy);
  }

  get atEnd() {
    return !this.film || this.playhead.frame >= this.film.length - 1;
  }

  drag(pointers, released) {
    this.seq += 1;
    this.toTake({ type: "drag", seq: this.seq, seen: this.playhead.frame, pointers, released });
    if (!this.playhead.playing) this.playhead.play(this.now());
  }

  /* Leave the take as it is; go on in another from the frame on the screen. */
  branch() {
    const latent = latentOf(Math.max(0, this.playhead.frame) + 1, this.factor);
    const from = this.film;
    this.say({ type: "branch", take: from.take, latent });
    this.pending = { key: "branch", from };
    this.queued = [];
  }

  rewind() {
    this.toTake({ type: "rewind", latent: latentOf(Math.max(0, this.playhead.frame) + 1, this.factor) });
  }

  /* Play or pause. At the end of a watched take playing asks the server to go on. */
  toggle() {
    const film = this.film;
    if (!film) return;
    const on = !this.playhead.playing || (this.atEnd && !film.running && !film.done);
    if (film.paced && !film.done) {
      film.running = on;
      this.toTake({ type: "run", on });
    }
    if (on) this.playhead.play(this.now(), this.atEnd && (film.done || film.lost || !film.paced) ? -1 : this.playhead.frame);
    else this.playhead.pause();
    this.tell("play");
  }

  seek(frame) {
    this.playhead.pause();
    if (this.film?.running) this.toTake({ type: "run", on: false });
    if (this.film) this.film.running = false;
    this.playhead.seek(frame);
    this.tell("play");
  }

  choose(take) {
    this.film = this.films.get(take);
    this.playhead.pause();
    this.playhead.seek(this.film.length - 1);
    this.tell("takes");
  }

  save(draw) {
    this.toTake({ type: "export", draw });
  }

  cancel() {
    this.toTake({ type: "cancel" });
  }

  replan(tracks, numFrames) {
    if (this.film?.paced && this.film.length) this.toTake({ type: "plan", tracks, num_frames: numFrames });
  }

  /* Forget all takes: another picture. */
  clear() {
    if (this.film && !this.film.lost) this.toTake({ type: "cancel" });
    this.films.clear();
    this.film = null;
    this.pending = null;
    this.playhead.pause();
    this.playhead.seek(-1);
    this.tell("takes");
  }

  /* Called for every screen refresh; true if another frame is to be painted. */
  tick(now) {
    const film = this.film;
    if (!film) return false;
    const again = () => this.tell("frame");
    for (let ahead = 1; ahead <= 4; ahead += 1) film.at(this.playhead.frame + ahead, again);
    if (!this.playhead.tick(now, film.length, (frame) => film.at(frame, again) !== null)) {
      if (this.playhead.playing && this.atEnd && film.done) {
        this.playhead.pause();
        this.tell("play");
      }
      return false;
    }
    const frame = this.playhead.frame;
    if (this.waitFor !== null && frame >= this.waitFor) {
      this.stats.first = now - this.pressedAt;
      this.waitFor = this.pressedAt = null;
    }
    if (film.paced && !film.done) this.toTake({ type: "seen", frame, rtt: Math.min(10, this.link?.rtt || 0) });
    return true;
  }

  receive(header, parts) {
    const handler = this[`on_${header.type}`];
    if (handler) handler.call(this, header, parts);
    else this.tell(header.type, parts.length ? { header, parts } : header);
  }

  adopt(film) {
    this.films.set(film.take, film);
    if (this.films.size > 4) this.films.delete(this.films.keys().next().value);
    this.film = film;
    this.pending = null;
    const said = this.queued;
    this.queued = [];
    said.forEach((message) => this.toTake(message));
    this.tell("takes");
  }

  on_started(header) {
    if (!this.pending) return;
    const film = new Film(header.take, header.num_frames, header.fps, this.decode);
    Object.assign(film, { paced: this.pending.paced, key: this.pending.key, startedAt: this.pending.at });
    this.adopt(film);
    this.playhead.play(this.now(), -1);
  }

  on_branched(header) {
    if (this.pending?.key !== "branch") return;
    const film = this.pending.from.copy(header.take, header.frames);
    film.paced = true;
    this.adopt(film);
    this.playhead.seek(film.length - 1);
    this.playhead.play(this.now());
  }

  on_rewound(header) {
    const film = this.films.get(header.take);
    if (!film) return;
    film.cut(header.frames);
    Object.assign(film, { paced: true, running: false });
    if (film === this.film) this.playhead.seek(film.length - 1);
    this.tell("takes");
  }

  on_frames(header, parts) {
    const film = this.films.get(header.take);
    if (!film) return;
    film.add(header.first, parts, header.places);
    if (header.lag !== null) this.stats.lag = header.lag;
    if (this.pressedAt !== null && this.waitFor === null && header.first > 0) this.waitFor = header.first;
    const now = this.now();
    if (header.first <= 1 || now - this.rate.since > 2000) this.rate = { frames: 0, since: now };
    else {
      this.rate.frames += parts.length;
      this.stats.fps = (this.rate.frames * 1000) / (now - this.rate.since);
    }
    if (header.first === 1 && !film.paced) this.stats.first = now - film.startedAt;
    this.tell("frame");
  }

  on_done(header) {
    const film = this.films.get(header.take);
    if (!film) return;
    Object.assign(film, { done: true, running: false });
    this.tell("done", header);
  }

  on_cancelled(header) {
    const film = this.films.get(header.take);
    if (!film) return; // another picture was chosen meanwhile
    Object.assign(film, { running: false, paced: true });
    this.tell("cancelled", header);
  }

  on_error(header) {
    if (this.pending) {
      this.pending = null;
      this.queued = [];
    }
    this.tell("error", header.message);
  }

  on_expired(header) {
    this.films.forEach((film) => (film.lost = true));
    this.pending = null;
    this.tell("expired", header);
  }
}
