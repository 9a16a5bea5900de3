/**
 * Every event of a buildapi server, once and in order, whatever happens to the connection.
 *
 *     node subscriber.mjs http://127.0.0.1:8010 'build.#' [since]
 *
 *     <script type="module">
 *       import { subscribe } from "./subscriber.mjs";
 *       const close = subscribe("https://ci.example.org", { topics: ["build.#"], onEvent: console.log });
 *     </script>
 */

const PAUSE_MS = 500;

/**
 * Call onEvent for each event after the position `since`; without one, from now on.
 *
 * onGap({from, to, why}): these are not coming: read again what they were about, by REST.
 * onGone({error, oldest, newest, log}): the position is of another log, as that was restored from a
 * backup; nothing more comes.  log: the X-Event-Log of the answer that `since` is from.
 * Returns a function that ends it.
 */
export function subscribe(server, { topics = ["#"], since = null, log = null, onEvent, onGap = () => {}, onGone = () => {} }) {
  let position = since;
  let closed = false;
  let hangUp = () => {};

  // All there is to it: what is not above the position has been told before.
  const hear = (kind, data) => {
    if (kind === "event") {
      if (position !== null && data.seq <= position) return;
      position = data.seq;
      onEvent(data);
    } else if (kind === "gap") {
      position = data.gap.to;
      onGap(data.gap);
    } else {
      position = data.synced ?? data.bookmark;
    }
  };
  const address = (more = {}) => {
    const query = new URLSearchParams(topics.map((topic) => ["topic", topic]));
    if (position !== null) query.set("since", position);
    if (log !== null) query.set("log", log);
    for (const [name, value] of Object.entries(more)) query.set(name, value);
    return `${server}/api/v2/events?${query}`;
  };
  const run = async () => {
    while (!closed) {
      const gone = await (globalThis.EventSource ? listened() : fetched()).catch(() => null);
      if (gone) return onGone(gone);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  };

  /** By EventSource, until it gives up; it does not say why, so we ask. */
  const listened = async () => {
    await new Promise((resolve) => {
      const source = new EventSource(address());
      hangUp = () => (source.close(), resolve());
      for (const kind of ["event", "synced", "bookmark", "gap"]) {
        source.addEventListener(kind, (message) => hear(kind, JSON.parse(message.data)));
      }
      // It comes back by itself, but pauses long; we know our position as well as it does.
      source.onerror = hangUp;
    });
    if (closed || position === null) return null;
    const answer = await fetch(address({ limit: 1 }));
    // 410 for events that were forgotten is none to a stream: there they are a gap.
    const said = answer.status === 410 ? await answer.json() : null;
    return said && !(position < said.oldest - 1 && (log === null || log === said.log)) ? said : null;
  };

  /** By fetch, where there is no EventSource. */
  const fetched = async () => {
    const control = new AbortController();
    hangUp = () => control.abort();
    const headers = { accept: "text/event-stream" };
    const answer = await fetch(address(), { headers, signal: control.signal });
    if (answer.status === 410) return answer.json();
    if (!answer.ok) throw new Error(await answer.text());
    let text = "";
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + piece).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s)));
        if (fields.has("data")) hear(fields.get("event"), JSON.parse(fields.get("data")));
      }
    }
    return null;
  };

  run();
  return () => {
    closed = true;
    hangUp();
  };
}

if (globalThis.process?.argv[1]?.endsWith("subscriber.mjs")) {
  const [, , server, topic, since] = process.argv;
  subscribe(server, {
    topics: [topic],
    since: since === undefined ? null : Number(since),
    onEvent: (event) => console.log(JSON.stringify(event)),
    onGap: (gap) => console.error("not coming:", gap),
    onGone: (gone) => console.error(gone.error),
  });
}
