/* How messages are packed on their way from the server, and how a link carries a drawing. */

/* Binary message: length of the JSON (4 bytes, big-endian), the JSON, the parts of the sizes it lists. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const parts = header.sizes.map((size) => {
    const part = new Uint8Array(buffer, at, size);
    at += size;
    return part;
  });
  if (at !== buffer.byteLength) throw new Error("a message of the server is cut off");
  return { header, parts };
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/* Any JSON value as the text of a link, compressed. */
export async function toLink(value) {
  const packed = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(value)));
  const text = btoa(Array.from(packed, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export async function fromLink(text) {
  const packed = bytesOf(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), packed)));
}
