// BuilderBot with its Meta provider: one flow of one step that answers whatever is written. It stores nothing and does
// not check signatures. Unmodified, its Meta provider does one thing every 100 ms; with BUILDERBOT_QUEUE=open that queue
// does 64 at once, which is set from outside.
import { EVENTS, MemoryDB, addKeyword, createBot, createFlow, createProvider } from "@builderbot/bot";
import { MetaProvider } from "@builderbot/provider-meta";

const answer = addKeyword(EVENTS.WELCOME).addAction(async (message, { flowDynamic }) => {
  await flowDynamic(`You said: ${message.body}`);
});
const provider = createProvider(MetaProvider, {
  jwtToken: "bench-access-token",
  numberId: "10600000000",
  verifyToken: "bench-verify-token",
  version: "v26.0",
});
if (process.env.BUILDERBOT_QUEUE === "open") {
  Object.assign(provider.queue.options, { concurrent: 64, interval: 0 });
}
const { httpServer } = await createBot({ flow: createFlow([answer]), provider, database: new MemoryDB() });
provider.server.get("/healthz", (_, response) => response.end("ok"));
httpServer(Number(process.env.PORT));
