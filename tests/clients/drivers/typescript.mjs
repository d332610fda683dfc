// node typescript.mjs PACKAGE MODE: the steps of a session with a TypeScript client, one JSON line a step.
const [, , name, mode] = process.argv;
const steps = JSON.parse(process.env.STEPS);
const headers = { Authorization: `Bearer ${process.env.TOKEN}` };

async function connected() {
  if (name === "sdk") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const client = new Client({ name: "clients-test", version: "1" });
    await client.connect(new StreamableHTTPClientTransport(new URL(process.env.URL_OF_GATEWAY), { requestInit: { headers } }));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const options = mode === "auto" ? { versionNegotiation: { mode: "auto" } } : {};
  const client = new Client({ name: "clients-test", version: "1" }, options);
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.URL_OF_GATEWAY), { requestInit: { headers } }));
  return client;
}

const client = await connected();
const { tools } = await client.listTools();
console.log(JSON.stringify({ step: "list", said: tools.map((tool) => tool.name) }));
for (const [step, tool, args] of steps) {
  try {
    const result = await client.callTool({ name: tool, arguments: args });
    console.log(JSON.stringify({ step, error: Boolean(result.isError), said: JSON.stringify(result) }));
  } catch (error) {
    console.log(JSON.stringify({ step, error: true, said: `${error.name}: ${error.message}` }));
  }
}
await client.close();
