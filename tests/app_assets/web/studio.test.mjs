import assert from "node:assert/strict";
import { test } from "node:test";

import { Studio } from "../../../app_assets/web/studio.js";

const SETTINGS = { picture: "p", prompt: "", seed: 0, steps: 3, num_frames: 33, tracks: null };
const settled = () => new Promise((resolve) => setTimeout(resolve));

/* A studio on a link that only records: what a server would answer is said by the tests. */
async function studio() {
  const said = [];
  const told = [];
  const clock = { now: 0 };
  const one = new Studio({
    open: async (receive, changed) => {
      one.changed = changed;
      return { rtt: 0.01, send: (message) => said.push(message) };
    },
    decode: async (part) => ({ width: 8, height: 8, part, close() {} }),
    tell: (event, detail) => told.push([event, detail]),
    fps: 16,
    factor: 4,
    now: () => clock.now,
  });
  return { one, said, told, clock };
}

const types = (said) => said.map((message) => message.type);

function frames(one, take, first, count, lag = null) {
  const places = Array(count).fill([[0.5, 0.5, 1]]);
  one.receive({ type: "frames", take, latent: 0, first, lag, places }, Array.from({ length: count }, (_, i) => `${first + i}`));
}

async function play(one, clock, ms) {
  for (let t = 0; t < ms; t += 20) {
    clock.now += 20;
    one.tick(clock.now);
    await settled();
  }
}

async function started(paced) {
  const all = await studio();
  all.one.begin(SETTINGS, paced);
  await settled();
  all.one.receive({ type: "started", take: 1, num_frames: 33, fps: 16, frames: 0, latent: 0 }, []);
  await settled();
  return all;
}

test("what is said before the server has answered is said to the take it names", async () => {
  const { one, said } = await studio();
  assert.equal(one.press(SETTINGS), true);
  one.drag([{ id: 1, way: [[0, 0.1, 0.1, 1]] }], []);
  await settled();
  assert.deepEqual(types(said), ["start"]);
  one.receive({ type: "started", take: 7, num_frames: 33, fps: 16 }, []);
  await settled();
  assert.deepEqual(types(said), ["start", "drag"]);
  assert.equal(said[1].take, 7);
  one.drag([], [1]);
  await settled();
  assert.ok(said[2].seq > said[1].seq);
});

test("the same start is not asked for twice, another one is", async () => {
  const { one, said } = await studio();
  one.begin(SETTINGS, true);
  one.press(SETTINGS);
  one.press({ ...SETTINGS, seed: 4 });
  await settled();
  assert.deepEqual(said.map((message) => [message.type, message.seed]), [["start", 0], ["start", 4]]);
});

test("a prepared take whose settings have changed is begun anew at the press", async () => {
  const { one, said } = await started(true);
  one.press({ ...SETTINGS, prompt: "other" });
  await settled();
  assert.deepEqual(types(said), ["start", "start"]);
});

test("frames are shown, the server hears of it, and the wait for the first effect is measured", async () => {
  const { one, said, clock } = await started(true);
  one.press(SETTINGS);
  frames(one, 1, 0, 1, 0);
  frames(one, 1, 1, 4, 2);
  await play(one, clock, 400);
  assert.equal(one.playhead.frame, 4);
  assert.ok(one.stats.first > 0 && one.stats.first < 200);
  assert.equal(one.stats.lag, 2);
  const seen = said.filter((message) => message.type === "seen").map((message) => message.frame);
  assert.deepEqual(seen, [0, 1, 2, 3, 4]);
});

test("a press far from the end leaves the take and branches where the visitor is", async () => {
  const { one, said, clock } = await started(false);
  for (let first = 0; first < 33; first += first ? 4 : 1) frames(one, 1, first, first ? 4 : 1);
  one.receive({ type: "done", take: 1, frames: 33 }, []);
  await play(one, clock, 60);
  one.seek(6);
  one.press(SETTINGS);
  one.drag([{ id: 1, way: [[0, 0, 0, 1]] }], []);
  await settled();
  assert.deepEqual(said.filter((m) => m.type === "branch").map((m) => [m.take, m.latent]), [[1, 2]]);
  one.receive({ type: "branched", take: 2, from: 1, frames: 5, latent: 2, num_frames: 33 }, []);
  await settled();
  assert.equal(one.film.take, 2);
  assert.deepEqual([one.film.length, one.films.get(1).length], [5, 33]);
  assert.deepEqual(said.at(-1).take, 2);
});

test("a full take says so when it is pressed at its end", async () => {
  const { one, told, clock } = await started(true);
  for (let first = 0; first < 33; first += first ? 4 : 1) frames(one, 1, first, first ? 4 : 1);
  one.receive({ type: "done", take: 1, frames: 33 }, []);
  await play(one, clock, 60);
  one.seek(32);
  assert.notEqual(one.press(SETTINGS), true);
  assert.match(told.at(-1)[1], /full/);
});

test("rewinding cuts what comes after", async () => {
  const { one, said } = await started(true);
  frames(one, 1, 0, 1);
  frames(one, 1, 1, 4);
  frames(one, 1, 5, 4);
  one.seek(4);
  one.rewind();
  await settled();
  assert.equal(said.at(-1).latent, 2);
  one.receive({ type: "rewound", take: 1, latent: 2, frames: 5 }, []);
  assert.deepEqual([one.film.length, one.playhead.frame], [5, 4]);
});

test("playing on at the end of a watched take asks the server, pausing stops it", async () => {
  const { one, said } = await started(true);
  frames(one, 1, 0, 1);
  one.seek(0);
  one.toggle();
  one.toggle();
  await settled();
  assert.deepEqual(said.filter((m) => m.type === "run").map((m) => m.on), [true, false]);
  assert.equal(one.moving, false);
});

test("a lost connection keeps the frames, and the next press begins anew", async () => {
  const { one, said, told } = await started(true);
  frames(one, 1, 0, 1);
  one.changed(false, "lost");
  assert.deepEqual(told.at(-1), ["lost", "lost"]);
  assert.equal(one.film.length, 1);
  one.press(SETTINGS);
  await settled();
  assert.deepEqual(types(said), ["start", "start"]);
});

test("an error of the server frees the page", async () => {
  const { one, told } = await studio();
  one.begin(SETTINGS, false);
  assert.equal(one.busy, true);
  one.receive({ type: "error", message: "seed: wrong", take: null }, []);
  assert.deepEqual([one.busy, told.at(-1)], [false, ["error", "seed: wrong"]]);
});

test("what is said of a take that is no longer kept is let go", async () => {
  const { one, told } = await started(true);
  one.clear();
  told.length = 0;
  frames(one, 1, 0, 1);
  one.receive({ type: "cancelled", take: 1, frames: 1 }, []);
  one.receive({ type: "done", take: 1, frames: 1 }, []);
  assert.deepEqual([one.film, told], [null, []]);
});
