// node:http that answers when JetStream has acknowledged.
import { createServer } from "node:http";
import { open } from "./jetstream.js";
import { everyCore, handler } from "./webhook.js";

await everyCore(async () => {
  createServer(handler(await open())).listen(Number(process.env.PORT), "127.0.0.1", 1024);
});
