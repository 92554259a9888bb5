// Fastify that answers when JetStream has acknowledged.
import Fastify from "fastify";
import { open } from "./jetstream.js";
import { everyCore, verified } from "./webhook.js";

await everyCore(async () => {
  const store = await open();
  const app = Fastify({ logger: false, bodyLimit: 4 << 20 });
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_, body, done) => done(null, body));
  app.get("/*", (_, reply) => reply.send(""));
  app.post("/webhooks/meta/:app", async (request, reply) => {
    if (!verified(request.body, request.headers["x-hub-signature-256"])) return reply.code(401).send("");
    await store(request.body);
    return reply.code(200).send("");
  });
  await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 1024 });
});
