import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "../../../app_assets/web/transport.js";
import { bytesOf, fromLink, toLink, unpack } from "../../../app_assets/web/wire.js";

function packed(header, parts) {
  const text = new TextEncoder().encode(JSON.stringify({ ...header, sizes: parts.map((part) => part.length) }));
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, text.length);
  return Uint8Array.from([...head, ...text, ...parts.flat()]).buffer;
}

test("a message comes apart into what was put in", () => {
  const { header, parts } = unpack(packed({ type: "frames", take: 2 }, [[1, 2, 3], [], [255]]));
  assert.deepEqual([header.type, header.take], ["frames", 2]);
  assert.deepEqual(parts.map((part) => [...part]), [[1, 2, 3], [], [255]]);
});

test("a message that is cut off is refused", () => {
  const whole = packed({ type: "frames" }, [[1, 2, 3]]);
  assert.throws(() => unpack(whole.slice(0, whole.byteLength - 1)));
  assert.throws(() => unpack(whole.slice(0, 9)));
});

test("a drawing survives the way through a link", async () => {
  const value = { tracks: Array.from({ length: 50 }, (_, i) => ({ x: i / 50, text: "ü→" })), example: undefined, seed: 3 };
  const text = await toLink(value);
  assert.match(text, /^[\w-]+$/);
  assert.ok(text.length < JSON.stringify(value).length / 2);
  assert.deepEqual(await fromLink(text), JSON.parse(JSON.stringify(value)));
  await assert.rejects(fromLink(text.slice(0, 20)));
});

test("values of Gradio's queue: whole, replaced, unchanged", () => {
  assert.equal(textOf("a"), "a");
  assert.equal(textOf([["replace", [], "b"]]), "b");
  assert.equal(textOf([]), null);
  assert.deepEqual([...bytesOf("AAH/")], [0, 1, 255]);
});
