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
