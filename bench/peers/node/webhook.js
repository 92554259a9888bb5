// What the Node peers share: Meta's signature, the body, one process per core.
import { createHmac, timingSafeEqual } from "node:crypto";
import cluster from "node:cluster";
import { availableParallelism } from "node:os";

const secret = process.env.APP_SECRET;

/** Whether the header is Meta's signature over the exact bytes. */
export function verified(raw, header) {
  if (!header?.startsWith("sha256=")) return false;
  const expected = createHmac("sha256", secret).update(raw).digest();
  const claimed = Buffer.from(header.slice(7), "hex");
  return claimed.length === expected.length && timingSafeEqual(claimed, expected);
}

/** The id of the first update, which is what a handler dedupes by. */
export function updateId(raw) {
  const value = JSON.parse(raw).entry[0].changes[0].value;
  return (value.messages ?? value.statuses)[0].id;
}

/** Runs `serve` in one process per core. */
export async function everyCore(serve) {
  if (cluster.isPrimary) {
    for (let core = 0; core < availableParallelism(); core += 1) cluster.fork();
    cluster.on("exit", () => process.exit(1));
  } else {
    await serve();
  }
}

/** A node:http handler that stores a webhook and then answers it. */
export function handler(store) {
  return (request, response) => {
    const end = (status) => response.writeHead(status, { "content-length": 0 }).end();
    if (request.method === "GET") return end(200);
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const raw = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
      if (!verified(raw, request.headers["x-hub-signature-256"])) return end(401);
      store(raw).then(() => end(200), () => end(503));
    });
  };
}
