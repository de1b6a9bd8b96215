import assert from "node:assert/strict";
import { test } from "node:test";

import { Fingers } from "../../../app_assets/web/fingers.js";

function hand() {
  const pressed = [];
  const sizes = [];
  const waiting = [];
  const press = (id, row) => pressed.push([id, row]);
  const fingers = new Fingers({ press, sigma: () => 0.1, resize: (sigma) => sizes.push(sigma), later: (then) => waiting.push(then) });
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
