import assert from "node:assert/strict";
import { test } from "node:test";

import * as brush from "../../../app_assets/web/brush.js";

test("a notch up and one down give the same brush; it ends at its smallest and largest", () => {
  assert.ok(brush.stepped(0.11, 1) > 0.11);
  assert.ok(Math.abs(brush.stepped(brush.stepped(0.11, 1), -1) - 0.11) < 1e-4);
  assert.deepEqual([brush.stepped(0.11, 99), brush.stepped(0.11, -99)], [0.5, 0.02]);
});

test("wheels count in pixels or lines, away from the hand is larger, a pad's pinch is finer", () => {
  const notches = (deltaY, deltaMode = 0, ctrlKey = false) => brush.notchesOf({ deltaY, deltaMode, ctrlKey });
  assert.deepEqual([notches(-100), notches(100), notches(-9999)], [1, -1, 3]);
  assert.ok(Math.abs(notches(-3, 1) - 1) < 0.02, "three lines are a notch");
  assert.equal(notches(-12.5, 0, true), 1);
});

test("fingers twice as far apart make the brush twice as wide, and back", () => {
  const pinch = new brush.Pinch(0.1, [7, [0.4, 0.5]], [8, [0.6, 0.5]]);
  assert.equal(pinch.move(8, [0.8, 0.5]), 0.2);
  assert.equal(pinch.move(7, [0.6, 0.5]), 0.1);
  assert.equal(pinch.move(7, [0.8, 0.5]), 0.02, "fingers that meet are no division by zero");
});

test("the ring lies where half of the picture is taken along, the piece ends where nothing is", () => {
  assert.ok(Math.abs(brush.edgeAt(brush.HALF * 14, 14) - 0.5) < 1e-9);
  assert.equal(brush.edgeAt(0, 14), 1);
  assert.ok(brush.edgeAt(2.5 * 14, 14) < 1e-4);
  assert.equal(brush.spread(0.11, { width: 160, height: 40 }), 8.8);
});

function hand() {
  const pressed = [];
  const sizes = [];
  const waiting = [];
  const press = (id, row) => pressed.push([id, row]);
  const fingers = new brush.Fingers({ press, sigma: () => 0.1, resize: (sigma) => sizes.push(sigma), later: (then) => waiting.push(then) });
  return { fingers, pressed, sizes, wait: () => waiting.splice(0).forEach((then) => then()) };
}

test("two fingers that come down together change the brush and press nothing", () => {
  const { fingers, pressed, sizes, wait } = hand();
  fingers.down(1, [0, 0.4, 0.5, 1]);
  fingers.down(2, [9, 0.6, 0.5, 1]);
  assert.equal(fingers.move(2, [20, 0.7, 0.5, 1]), true);
  wait();
  fingers.up(2);
  assert.equal(fingers.move(1, [30, 0.1, 0.5, 1]), false, "the finger that is left does nothing");
  fingers.up(1);
  assert.deepEqual([pressed, sizes], [[], [0.15]]);
});

test("a finger that moves, waits or is lifted presses where it came down, once", () => {
  for (const act of [(h) => h.fingers.move(1, [9, 0.5, 0.5, 1]), (h) => h.wait(), (h) => h.fingers.up(1)]) {
    const one = hand();
    one.fingers.down(1, [0, 0.4, 0.5, 1]);
    assert.equal(one.fingers.move(1, [1, 0.405, 0.5, 1]), true);
    act(one);
    one.wait();
    assert.deepEqual(one.pressed, [[1, [0, 0.4, 0.5, 1]]]);
    assert.equal(one.fingers.move(1, [20, 0.6, 0.5, 1]), false);
  }
});

test("a second finger later presses too, and what is let go of is forgotten", () => {
  const { fingers, pressed, wait } = hand();
  fingers.down(1, [0, 0.4, 0.5, 1]);
  wait();
  fingers.down(2, [400, 0.6, 0.5, 1]);
  wait();
  fingers.down(3, [900, 0.1, 0.1, 1]);
  fingers.letGo();
  wait();
  assert.deepEqual(pressed.map(([id]) => id), [1, 2]);
});
