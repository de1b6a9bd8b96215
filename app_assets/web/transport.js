/* The way to the server: a socket, or where no socket passes, Gradio's queue (server-sent events) and posts. */

import { bytesOf, unpack } from "./wire.js";

const PING_MS = 2000;

/* `receive(header, parts)` for messages, `changed(open, text)` when the way opens or breaks. */
export async function connect(kind, receive, changed) {
  if (kind === "events") return openEvents(receive, changed);
  try {
    return await openSocket(receive, changed);
  } catch {
    return openEvents(receive, changed);
  }
}

function openSocket(receive, changed) {
  return new Promise((resolve, reject) => {
    const address = new URL("live", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    const link = { rtt: 0, send: (message) => socket.send(JSON.stringify(message)) };
    let sent = 0;
    let pings = 0;
    const ping = () => {
      sent = performance.now();
      socket.send('{"type":"ping"}');
    };
    socket.onopen = () => {
      ping();
      pings = setInterval(ping, PING_MS);
      changed(true, "");
      resolve(link);
    };
    socket.onmessage = ({ data }) => {
      const { header, parts } = typeof data === "string" ? { header: JSON.parse(data), parts: [] } : unpack(data);
      if (header.type === "pong") link.rtt = (performance.now() - sent) / 1000;
      else receive(header, parts);
    };
    socket.onclose = () => {
      clearInterval(pings);
      changed(false, "The connection is lost. Your frames stay; press again to connect anew.");
      reject(new Error("closed"));
    };
  });
}

async function openEvents(receive, changed) {
  const { session } = await (await fetch("session", { method: "POST" })).json();
  const hash = session.slice(0, 12);
  const config = await (await fetch("config")).json();
  const index = config.dependencies.find((one) => one.api_name === "events").id;
  const body = JSON.stringify({ data: [session], fn_index: index, session_hash: hash });
  const headers = { "Content-Type": "application/json" };
  const joined = await fetch("gradio_api/queue/join", { method: "POST", headers, body });
  if (!joined.ok) throw new Error("the queue is full; try again in a minute");
  const source = new EventSource(`gradio_api/queue/data?session_hash=${hash}`);
  const close = () => {
    source.close();
    changed(false, "");
  };
  source.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.msg === "estimation" && message.rank > 0) receive({ type: "queue", position: message.rank }, []);
    if (message.msg === "process_generating") {
      const text = textOf(message.output.data[0]);
      if (text === null) return;
      const { parts, ...header } = JSON.parse(text);
      receive(header, parts.map(bytesOf));
    }
    if (message.msg === "process_completed") close();
  };
  source.onerror = close;
  changed(true, "");
  let order = Promise.resolve(); // one post after the other: messages must not overtake each other
  const send = (message) => {
    order = order.then(() => fetch(`session/${session}`, { method: "POST", body: JSON.stringify(message) })).catch(() => {});
  };
  return { rtt: 0.1, send };
}

/* Gradio sends the first value whole and later ones as differences; ours are replaced as a whole. */
export function textOf(value) {
  if (typeof value === "string") return value;
  const edit = Array.isArray(value) ? value.find(([action]) => action === "replace") : null;
  return edit ? edit[2] : null;
}
