/* Touches, where a brush is offered: two fingers that come down together are a pinch, others press as a mouse does. */

import { PINCH_MS, PINCH_REACH, Pinch } from "./brush.js";

export class Fingers {
  /* `press(id, row)` begins a stroke; `sigma()` and `resize(sigma)` are the brush. Rows are [ms, x, y, force]. */
  constructor({ press, sigma, resize, later = setTimeout }) {
    Object.assign(this, { press, sigma, resize, later });
    this.resting = null; // a finger that has come down and may be the first of two
    this.pinch = null;
  }

  down(id, row) {
    if (this.pinch) return;
    if (!this.resting) {
      const resting = { id, row };
      this.resting = resting;
      this.later(() => this.resting === resting && this.begin(), PINCH_MS);
      return;
    }
    const [, ax, ay] = this.resting.row;
    this.pinch = new Pinch(this.sigma(), [this.resting.id, [ax, ay]], [id, [row[1], row[2]]]);
    this.resting = null;
  }

  /* True if the finger draws nothing: it rests, or pinches. */
  move(id, [, x, y]) {
    if (this.pinch?.fingers.has(id)) this.resize(this.pinch.move(id, [x, y]));
    else if (this.resting?.id !== id) return false;
    else if (Math.hypot(x - this.resting.row[1], y - this.resting.row[2]) > PINCH_REACH) {
      this.begin();
      return false;
    }
    return true;
  }

  up(id) {
    if (this.pinch?.fingers.has(id)) this.pinch = null;
    if (this.resting?.id === id) this.begin();
  }

  begin() {
    const { id, row } = this.resting;
    this.resting = null;
    this.press(id, row);
  }

  letGo() {
    this.resting = this.pinch = null;
  }
}
