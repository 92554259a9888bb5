// JetStream as the Node peers use it: one stream, one PubAck a webhook, deduped by Meta's id.
import { connect } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { updateId } from "./webhook.js";

export async function open() {
  const connection = await connect({ servers: process.env.NATS_URL });
  const manager = await jetstreamManager(connection);
  await manager.streams.add({ name: "WEBHOOKS", subjects: ["webhooks.>"], storage: "file", num_replicas: 1 });
  const log = jetstream(connection);
  return (raw) => log.publish("webhooks.meta", raw, { msgID: updateId(raw) });
}
