/* The brush: how wide a piece of the picture a track takes along, `sigma` relative to sqrt(width * height). */

const [SMALLEST, LARGEST] = [0.02, 0.5];
const STEP = 1.1;
const NOTCH = 100;
/* Where the soft edge of a piece, exp(-(d^2 / 2 s^2)^2), has fallen to a half, in units of s. */
export const HALF = Math.sqrt(2 * Math.sqrt(Math.log(2)));
/* Where a piece ends, in units of s. */
const REACH = 2.5;
/* Two fingers that come down within this time, before the first has moved this far, are a pinch. */
const PINCH_MS = 250;
const PINCH_REACH = 0.015;

export const inReach = (sigma) => Number(Math.min(LARGEST, Math.max(SMALLEST, sigma)).toFixed(4));

/* One notch of a wheel, or the press of a key: `notches` below 0 is smaller. */
export const stepped = (sigma, notches) => inReach(sigma * STEP ** notches);

/* Turned away from the hand is larger. A pad's pinch comes as a wheel with Ctrl, in finer steps. */
export function notchesOf({ deltaY, deltaMode, ctrlKey }) {
  const pixels = deltaY * (deltaMode === 0 ? 1 : 33);
  return -Math.min(3, Math.max(-3, pixels / (ctrlKey ? NOTCH / 8 : NOTCH)));
}

/* Pixels of `sigma` on a canvas. */
export const spread = (sigma, { width, height }) => sigma * Math.sqrt(width * height);

/* Two fingers: the brush grows as they part. Places are 0..1 of the canvas. */
export class Pinch {
  constructor(sigma, first, second) {
    this.sigma = sigma;
    this.fingers = new Map([first, second]);
    this.apart = this.distance;
  }

  get distance() {
    const [[ax, ay], [bx, by]] = [...this.fingers.values()];
    return Math.max(0.01, Math.hypot(ax - bx, ay - by));
  }

  /* The brush after finger `id` moved. */
  move(id, place) {
    this.fingers.set(id, place);
    return inReach((this.sigma * this.distance) / this.apart);
  }
}

/* Touches: two fingers that come down together are a pinch, others press as a mouse does. */
export class Fingers {
  /* `press(id, row)` begins a stroke; `sigma()` and `resize(sigma)` are the brush. Rows are [ms, x, y, force]. */
  constructor({ press, sigma, resize, later = (then, ms) => setTimeout(then, ms) }) {
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

/* What a track takes along: the piece of `image` round `place`, cut out as the model is shown it. */
export function cutPiece(image, place, sigma, size) {
  const s = spread(sigma, size);
  const reach = Math.ceil(REACH * s);
  const [piece, edge] = [0, 1].map(() => Object.assign(document.createElement("canvas"), { width: 2 * reach, height: 2 * reach }));
  const pen = piece.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, reach - place[0] * size.width, reach - place[1] * size.height, size.width, size.height);
  const soft = edge.getContext("2d");
  const fall = soft.createRadialGradient(reach, reach, 0, reach, reach, reach);
  for (let i = 0; i <= 32; i += 1) fall.addColorStop(i / 32, `rgba(0,0,0,${edgeAt((i / 32) * reach, s).toFixed(4)})`);
  soft.fillStyle = fall;
  soft.fillRect(0, 0, 2 * reach, 2 * reach);
  pen.globalCompositeOperation = "destination-in";
  pen.drawImage(edge, 0, 0);
  return { image: piece, reach };
}

/* Of what is at distance `d` from the grabbed point, how much is taken along. */
export function edgeAt(d, s) {
  return Math.exp(-(((d * d) / (2 * s * s)) ** 2));
}
