/* Frames of one take, and the clock that shows them. */

const BITMAP_BYTES = 192 * 2 ** 20;

export const firstFrameOf = (latent, factor) => (latent === 0 ? 0 : 1 + factor * (latent - 1));
export const latentOf = (frame, factor) => (frame <= 0 ? 0 : 1 + Math.floor((frame - 1) / factor));

/* A take's frames: encoded pictures, decoded ones as far as memory allows, and where the tracks were in each. */
export class Film {
  constructor(take, numFrames, fps, decode) {
    Object.assign(this, { take, numFrames, fps, decode, done: false, paced: false });
    this.encoded = [];
    this.places = [];
    this.bitmaps = new Map();
    this.waiting = new Set();
  }

  get length() {
    return this.encoded.length;
  }

  add(first, parts, places) {
    this.cut(first);
    parts.forEach((part, i) => {
      this.encoded.push(part);
      this.places.push(places[i]);
    });
  }

  cut(count) {
    this.encoded.length = Math.min(this.encoded.length, count);
    this.places.length = this.encoded.length;
    for (const frame of [...this.bitmaps.keys()]) if (frame >= count) this.forget(frame);
    this.done = this.encoded.length >= this.numFrames;
  }

  copy(take, count) {
    const twin = new Film(take, this.numFrames, this.fps, this.decode);
    twin.add(0, this.encoded.slice(0, count), this.places.slice(0, count));
    return twin;
  }

  forget(frame) {
    this.bitmaps.get(frame)?.close?.();
    this.bitmaps.delete(frame);
  }

  /* The decoded frame, or null while it is being decoded; `ready` is called once it is there. */
  at(frame, ready) {
    const bitmap = this.bitmaps.get(frame);
    if (bitmap) return bitmap;
    const part = this.encoded[frame];
    if (!part || this.waiting.has(frame)) return null;
    this.waiting.add(frame);
    this.decode(part).then(
      (decoded) => {
        this.waiting.delete(frame);
        if (this.encoded[frame] !== part) return;
        this.bitmaps.set(frame, decoded);
        const room = Math.max(16, Math.floor(BITMAP_BYTES / (4 * decoded.width * decoded.height)));
        if (this.bitmaps.size > room) this.forget(this.bitmaps.keys().next().value);
        ready?.();
      },
      () => this.waiting.delete(frame),
    );
    return null;
  }
}

/* Which frame is on the screen. Time comes from outside, so that it can be tested. */
export class Playhead {
  constructor(fps) {
    this.fps = fps;
    this.frame = -1;
    this.playing = false;
    this.due = 0;
  }

  play(now, from = this.frame) {
    this.frame = from;
    this.playing = true;
    this.due = now;
  }

  pause() {
    this.playing = false;
  }

  seek(frame) {
    this.frame = frame;
    this.due = 0;
  }

  /* Go on if it is time and the next of `available` frames is `ready`; true if the frame changed. */
  tick(now, available, ready) {
    if (!this.playing || now < this.due || this.frame + 1 >= available || !ready(this.frame + 1)) return false;
    this.frame += 1;
    const step = 1000 / this.fps;
    this.due = Math.max(this.due + step, now - step + step / 2);
    return true;
  }
}
