// A client of the TypeScript SDK 1.x: the same steps and the same answer as legacy.py.
import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";

const steps = JSON.parse(readFileSync(0, "utf8"));
const able = process.env.ABLE === "1";
const asked = [], heard = [], results = [];
const capabilities = able ? { elicitation: { form: {}, url: {} }, sampling: {}, roots: { listChanged: true } } : {};
const client = new Client({ name: "bridge", version: "1" }, { capabilities });
if (able) {
  client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => {
    const mode = params.mode ?? "form";
    asked.push(`elicitation/create ${mode}`);
    return { action: "accept", ...(mode === "form" ? { content: { name: "Bob" } } : {}) };
  });
  client.setRequestHandler(types.CreateMessageRequestSchema, () => {
    asked.push("sampling/createMessage");
    return { role: "assistant", content: { type: "text", text: "sampled" }, model: "none" };
  });
  client.setRequestHandler(types.ListRootsRequestSchema, () => {
    asked.push("roots/list");
    return { roots: [{ uri: "file:///project" }] };
  });
}
client.fallbackNotificationHandler = async (notification) => void heard.push(notification);
const onprogress = ({ progress }) => heard.push({ method: "progress", params: { progress } });
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const count = async (what) => JSON.parse((await client.callTool({ name: "stats", arguments: {} })).content[0].text)[what];
const until = async (condition, seconds) => {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${condition}`);
    await wait(50);
  }
};
const lists = { tools: "listTools", prompts: "listPrompts", resources: "listResources", resource_templates: "listResourceTemplates" };
const STEPS = {
  list: (what) => client[lists[what]](),
  call: (name, args) =>
    client.request({ method: "tools/call", params: { name, arguments: args } }, types.CallToolResultSchema, { onprogress }),
  cancel: async (name) => {
    const [begun, ended] = [await count("begun"), await count("cancelled")];
    const stop = new AbortController();
    const call = client.callTool({ name, arguments: {} }, undefined, { signal: stop.signal });
    call.catch(() => {});
    await until(async () => (await count("begun")) > begun, 20);
    stop.abort("enough");
    await until(async () => (await count("cancelled")) > ended, 20);
    return call;
  },
  read: (uri) => client.readResource({ uri }),
  prompt: (name, args) => client.getPrompt({ name, arguments: args }),
  complete: (name, argument) => client.complete({ ref: { type: "ref/prompt", name }, argument }),
  subscribe: (uri) => client.subscribeResource({ uri }),
  unsubscribe: (uri) => client.unsubscribeResource({ uri }),
  level: (level) => client.setLoggingLevel(level),
  ping: () => client.ping(),
  roots_changed: () => client.sendRootsListChanged(),
  pause: async (seconds) => {
    await until(async () => heard.length, seconds);
    return {};
  },
};
const transport = new StreamableHTTPClientTransport(new URL(process.env.URL_OF_GATEWAY), {
  requestInit: { headers: { Authorization: `Bearer ${process.env.TOKEN}` } },
});
await client.connect(transport);
for (const [method, ...args] of steps) {
  try {
    results.push((await STEPS[method](...args)) ?? {});
  } catch (error) {
    results.push({ error: { code: error.code ?? 0, message: String(error.message) } });
  }
}
console.log(JSON.stringify({ revision: transport.protocolVersion, results, asked, heard }));
await client.close();
