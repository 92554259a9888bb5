// node:http that answers when BullMQ has the job in Redis.
import { createServer } from "node:http";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import { everyCore, handler, updateId } from "./webhook.js";

await everyCore(async () => {
  const connection = new Redis(Number(process.env.REDIS_PORT), "127.0.0.1", { maxRetriesPerRequest: null });
  const queue = new Queue("webhooks", { connection });
  await queue.waitUntilReady();
  const store = (raw) => queue.add("webhook", raw.toString(), { jobId: updateId(raw) });
  createServer(handler(store)).listen(Number(process.env.PORT), "127.0.0.1", 1024);
});
