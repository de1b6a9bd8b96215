import assert from "node:assert/strict";
import { test } from "node:test";

import * as tracks from "../../../app_assets/web/tracks.js";

const file = () => tracks.emptyFile(33, 16);
const line = (ms = 1000, count = 21) =>
  Array.from({ length: count }, (_, i) => [500 + (ms * i) / (count - 1), 0.1 + (0.8 * i) / (count - 1), 0.5, 1]);

test("a drawn second is 16 frames in real time, the whole clip when stretched, never more than the clip", () => {
  assert.equal(tracks.timed(line(), 33, 16, false).at(-1).f, 16);
  assert.equal(tracks.timed(line(), 33, 16, true).at(-1).f, 32);
  assert.equal(tracks.timed(line(9000), 33, 16, false).at(-1).f, 32);
  assert.equal(tracks.timed(line(), 33, 16, true)[0].f, 0);
});

test("times increase strictly whatever the events say", () => {
  const rows = [[0, 0, 0, 1], [10, 0.1, 0, 1], [10, 0.2, 0, 1], [5, 0.3, 0, 1], [20, 0.4, 0, 1]];
  const times = tracks.timed(rows, 33, 16, true).map((point) => point.f);
  assert.ok(times.every((f, i) => i === 0 || f > times[i - 1]), String(times));
});

test("simplify keeps a straight steady line as two points, and a corner or a pause as one more", () => {
  const points = tracks.timed(line(), 33, 16, true);
  assert.equal(tracks.simplify(points, 33).length, 2);
  const corner = points.map((point, i) => ({ ...point, y: i > 10 ? 0.5 + (i - 10) / 40 : 0.5 }));
  assert.equal(tracks.simplify(corner, 33).length, 3);
  const pause = [{ f: 0, x: 0, y: 0, p: 1 }, { f: 5, x: 0.5, y: 0, p: 1 }, { f: 20, x: 0.5, y: 0, p: 1 }, { f: 32, x: 1, y: 0, p: 1 }];
  assert.deepEqual(tracks.simplify(pause, 33), pause);
});

test("a simplified path is nowhere farther off than the tolerance", () => {
  const rows = Array.from({ length: 300 }, (_, i) => [i * 7, 0.5 + 0.4 * Math.cos(i / 40), 0.5 + 0.4 * Math.sin(i / 25), 1]);
  const points = tracks.timed(rows, 33, 16, true);
  const few = { points: tracks.simplify(points, 33) };
  assert.ok(few.points.length < 60);
  for (const point of points) {
    const [x, y] = tracks.placeAt(few, point.f);
    assert.ok(Math.hypot(x - point.x, y - point.y) < 0.0041);
  }
});

test("a path, a tap and pins: kinds, ids, colours", () => {
  let drawn = tracks.addPath(file(), line(), true);
  drawn = tracks.addPath(drawn, [[0, 0.3, 0.4, 1]], true);
  drawn = tracks.addPath(drawn, line(), true);
  assert.deepEqual(drawn.tracks.map((track) => [track.id, track.kind]), [["t1", "drag"], ["pin1", "static"], ["t2", "drag"]]);
  assert.equal(new Set(drawn.tracks.map((track) => track.color)).size, 3);
  assert.deepEqual(drawn.tracks[1].points, [{ f: 0, x: 0.3, y: 0.4 }]);
});

test("a brush is the sigma of its track, drawn with it or given later", () => {
  let drawn = tracks.addPin(tracks.addPath(file(), line(), true, { sigma: 0.2 }), 0.5, 0.5);
  drawn = tracks.addPath(drawn, [[0, 0.3, 0.4, 1]], true, { sigma: 0.05 });
  assert.deepEqual(drawn.tracks.map((track) => track.sigma), [0.2, undefined, 0.05]);
  assert.deepEqual(tracks.withSigma(drawn, "pin1", 0.3).tracks.map((track) => track.sigma), [0.2, 0.3, 0.05]);
  assert.ok(!("sigma" in drawn.tracks[1]), "the usual brush is the checkpoint's");
});

test("tracks of a file without colours get one each, and keep what they have", () => {
  const points = [{ f: 0, x: 0, y: 0 }];
  const drawn = tracks.coloured({ ...file(), tracks: [{ id: "a", points }, { id: "b", points, color: "#000" }, { id: "c", points }] });
  assert.equal(new Set(drawn.tracks.map((track) => track.color)).size, 3);
  assert.equal(drawn.tracks[1].color, "#000");
});

test("background pins keep away from what is drawn", () => {
  const drawn = tracks.pinBackground(tracks.addPin(file(), 0.5, 0.5));
  const pins = drawn.tracks.slice(1);
  assert.ok(pins.length >= 8 && pins.length < 16);
  assert.ok(pins.every((pin) => Math.hypot(pin.points[0].x - 0.5, pin.points[0].y - 0.5) > 0.22));
  assert.ok(pins.every((pin) => pin.sigma === 0) && !("sigma" in drawn.tracks[0]), "pins of the ground, not of things");
});

test("nothing is changed in place", () => {
  const before = tracks.addPath(file(), line(), true);
  const text = JSON.stringify(before);
  tracks.movePoint(before, "t1", 0, 0.9, 0.9);
  tracks.removePoint(before, "t1", 0);
  tracks.retime(before, 65);
  tracks.insertPoint(before, "t1", 0);
  assert.equal(JSON.stringify(before), text);
});

test("points are moved in place and time within their neighbours, added and removed", () => {
  let drawn = tracks.insertPoint(tracks.addPath(file(), line(), true), "t1", 0);
  assert.deepEqual(drawn.tracks[0].points[1], { f: 16, x: 0.5, y: 0.5, p: 1 });
  drawn = tracks.movePoint(drawn, "t1", 1, 2, -1);
  assert.deepEqual([drawn.tracks[0].points[1].x, drawn.tracks[0].points[1].y], [1, 0]);
  assert.equal(tracks.movePointInTime(drawn, "t1", 1, 99).tracks[0].points[1].f, 31.9);
  assert.equal(tracks.movePointInTime(drawn, "t1", 1, 4).tracks[0].points[1].f, 4);
  drawn = tracks.removePoint(tracks.removePoint(drawn, "t1", 1), "t1", 0);
  assert.equal(drawn.tracks[0].kind, "static");
  assert.deepEqual(tracks.removePoint(drawn, "t1", 0).tracks, []);
});

test("retiming one track and the whole clip keeps speeds in proportion", () => {
  const drawn = tracks.insertPoint(tracks.addPath(file(), line(), true), "t1", 0);
  const late = tracks.retimeTrack(drawn, "t1", 8, 24).tracks[0];
  assert.deepEqual(late.points.map((point) => point.f), [8, 16, 24]);
  assert.ok(Math.abs(tracks.speed(late, 16) - 2 * tracks.speed(drawn.tracks[0], 16)) < 1e-9);
  const longer = tracks.retime(tracks.withCameraKey(drawn, 32, { pan: [0.1, 0], zoom: 1, roll: 0 }), 65);
  assert.deepEqual(longer.tracks[0].points.map((point) => point.f), [0, 32, 64]);
  assert.deepEqual([longer.num_frames, longer.camera.keys[0].f], [65, 64]);
});

test("a straight second across 0.8 of the canvas is 0.8 widths per second", () => {
  const drawn = tracks.addPath(file(), line(), false);
  assert.ok(Math.abs(tracks.speed(drawn.tracks[0], 16) - 0.8) < 1e-3);
  assert.equal(tracks.speed(tracks.addPin(file(), 0, 0).tracks[0], 16), 0);
});

test("camera keys are sorted, replaced, removed, and leave drawn paths out", () => {
  const key = { pan: [0, 0], zoom: 1, roll: 0 };
  let drawn = tracks.withCameraKey(tracks.addPin(tracks.addPath(file(), line(), true), 0, 0), 20, key);
  drawn = tracks.withCameraKey(drawn, 0, { ...key, zoom: 2 });
  drawn = tracks.withCameraKey(drawn, 20, { ...key, roll: 5 });
  assert.deepEqual(drawn.camera.keys.map((one) => [one.f, one.zoom, one.roll]), [[0, 2, 0], [20, 1, 5]]);
  assert.deepEqual(drawn.camera.exclude, ["t1"]);
  assert.deepEqual(tracks.removeTrack(drawn, "t1").camera.exclude, []);
  assert.equal(tracks.withCameraKey(tracks.withCameraKey(drawn, 0, null), 20, null).camera, undefined);
});

test("places between points, before the first and after the last", () => {
  const track = { points: [{ f: 4, x: 0, y: 0 }, { f: 8, x: 1, y: 0.5 }] };
  assert.equal(tracks.placeAt(track, 3), null);
  assert.deepEqual(tracks.placeAt(track, 6), [0.5, 0.25]);
  assert.deepEqual(tracks.placeAt(track, 99), [1, 0.5]);
});

test("the nearest point within reach is hit", () => {
  const drawn = tracks.addPin(tracks.addPin(file(), 0.5, 0.5), 0.53, 0.5);
  assert.deepEqual(tracks.hit(drawn, 0.52, 0.5, 0.05), { id: "pin2", index: 0 });
  assert.equal(tracks.hit(drawn, 0.9, 0.9, 0.05), null);
});

test("files are read, and refused with a reason", () => {
  const drawn = tracks.addPath(file(), line(), true);
  assert.deepEqual(tracks.readFile(JSON.stringify(drawn)), drawn);
  for (const [text, reason] of [
    ["{", /not JSON/],
    ["{}", /schema is missing/],
    [JSON.stringify({ ...drawn, tracks: [{ id: "a", points: [] }] }), /points of a track are missing/],
    [JSON.stringify({ ...drawn, tracks: [{ id: "a", points: [{ f: 0, x: null, y: 0 }] }] }), /finite/],
  ]) assert.throws(() => tracks.readFile(text), reason);
});

test("two arrays of Wan-Move are one file, the tracks first", async () => {
  const [way, seen] = [new File(["way "], "a_tracks.npy"), new File(["seen"], "a_visibility.npy")];
  assert.equal(tracks.joined([way]), way);
  for (const files of [[way, seen], [seen, way]]) assert.equal(await tracks.joined(files).text(), "way seen");
  for (const files of [[way, way], [way, seen, seen], [new File([], "a.json"), way]])
    assert.throws(() => tracks.joined(files), /choose one file, or a tracks.npy with its visibility.npy/);
});

test("an imported file goes through the cut of the picture that is shown", () => {
  const picture = { width: 128, height: 128, own: { width: 256, height: 512 } };
  const whole = { ...file(), tracks: [{ id: "a", points: [{ f: 0, x: 0.3, y: 0.35 }] }], edits: [{ points: [{ f: 5, x: 0.7, y: 0.5 }] }] };
  const shown = tracks.onPicture(whole, picture);
  assert.ok(Math.abs(shown.tracks[0].points[0].y - 0.2) < 1e-9 && shown.tracks[0].points[0].x === 0.3);
  assert.equal(shown.edits[0].points[0].y, 0.5);
  assert.deepEqual(shown.canvas, { width: 128, height: 128, fit: "cover" });
  assert.deepEqual(tracks.onPicture({ ...whole, canvas: { width: 256, height: 512 } }, picture).tracks, shown.tracks);
  for (const canvas of [{ width: 64, height: 64 }, { width: 300, height: 200, fit: "cover" }]) {
    const drawn = { ...whole, canvas };
    assert.equal(tracks.onPicture(drawn, picture), drawn, "drawn on what is shown");
  }
  assert.equal(tracks.onPicture(whole, { ...picture, own: { width: 90, height: 90 } }), whole);
  assert.throws(() => tracks.onPicture({ ...whole, canvas: { width: 512, height: 256 } }, picture), /another shape/);
  assert.throws(() => tracks.onPicture({ ...whole, camera: { keys: [] } }, picture), /set them anew/);
});

test("undo and redo", () => {
  const history = new tracks.History(0);
  [1, 2, 2, 3].forEach((value) => history.set(value));
  history.undo();
  history.undo();
  assert.equal(history.value, 1);
  history.redo();
  assert.equal(history.value, 2);
  history.set(9);
  history.redo();
  assert.equal(history.value, 9);
  for (let i = 0; i < 9; i += 1) history.undo();
  assert.equal(history.value, 0);
});
