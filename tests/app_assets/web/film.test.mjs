import assert from "node:assert/strict";
import { test } from "node:test";

import { Film, Playhead, firstFrameOf, latentOf } from "../../../app_assets/web/film.js";

const settled = () => new Promise((resolve) => setTimeout(resolve));
const film = (count = 9) => new Film(1, count, 16, async (part) => ({ width: 8, height: 8, name: part, close() {} }));

test("latents and frames, both ways", () => {
  assert.deepEqual([0, 1, 4, 5, 8, 9].map((frame) => latentOf(frame, 4)), [0, 1, 1, 2, 2, 3]);
  for (let latent = 0; latent < 9; latent += 1) assert.equal(latentOf(firstFrameOf(latent, 4), 4), latent);
});

test("frames are decoded once, asked for again, and forgotten when they are cut", async () => {
  const one = film();
  one.add(0, ["a"], [[]]);
  one.add(1, ["b", "c", "d", "e"], [[], [], [], []]);
  let told = 0;
  assert.equal(one.at(2, () => (told += 1)), null);
  assert.equal(one.at(2, () => (told += 1)), null);
  await settled();
  assert.equal(told, 1);
  assert.equal(one.at(2).name, "c");
  one.add(1, ["x", "y", "z", "w"], [[], [], [], []]);
  assert.equal(one.length, 5);
  one.at(2);
  await settled();
  assert.equal(one.at(2).name, "y");
  assert.equal(one.done, false);
});

test("a picture that was decoded after its frame was replaced is not shown", async () => {
  const one = film();
  one.add(0, ["old"], [[]]);
  one.at(0);
  one.add(0, ["new"], [[]]);
  await settled();
  assert.equal(one.at(0), null);
  await settled();
  assert.equal(one.at(0).name, "new");
});

test("a copy has the past and nothing else", () => {
  const one = film();
  one.add(0, ["a", "b", "c"], [[1], [2], [3]]);
  const twin = one.copy(2, 2);
  one.add(1, ["x"], [[9]]);
  assert.deepEqual([twin.encoded, twin.places, twin.take], [["a", "b"], [[1], [2]], 2]);
});

test("decoded pictures are bounded", async () => {
  const one = new Film(1, 999, 16, async () => ({ width: 4096, height: 4096, close() {} }));
  one.add(0, Array.from({ length: 40 }, (_, i) => i), Array(40).fill([]));
  for (let i = 0; i < 40; i += 1) one.at(i);
  await settled();
  assert.equal(one.bitmaps.size, 16);
  assert.ok(one.bitmaps.has(39));
});

test("frames are shown at their rate, wait for what is missing, and do not rush afterwards", () => {
  const head = new Playhead(16);
  const always = () => true;
  head.play(0, -1);
  let shown = 0;
  for (let now = 0; now < 1000; now += 10) shown += head.tick(now, 99, always);
  assert.ok(Math.abs(shown - 16) <= 1, `${shown} frames in a second`);
  assert.equal(head.tick(5000, head.frame + 1, always), false);
  assert.equal(head.tick(5000, 99, () => false), false);
  const at = head.frame;
  for (let now = 5000; now < 5100; now += 10) head.tick(now, 99, always);
  assert.ok(head.frame - at <= 3, "frames missed are not made up for in a rush");
  head.pause();
  assert.equal(head.tick(9000, 999, always), false);
});
