// Loaded before a bot: what it sends to graph.facebook.com over https goes to GRAPH_HOST over http.
import http from "node:http";
import https from "node:https";

const [hostname, port] = process.env.GRAPH_HOST.split(":");
const agent = new http.Agent({ keepAlive: true });
const { request } = https;
https.request = function (options, ...rest) {
  if (options?.hostname !== "graph.facebook.com") return request.call(this, options, ...rest);
  return http.request({ ...options, protocol: "http:", host: hostname, hostname, port, agent }, ...rest);
};
