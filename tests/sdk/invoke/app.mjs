// An app of the JavaScript SDK, served over HTTP or gRPC (PROTOCOL). See test_polyglot.py.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
const dapr = await import(pathToFileURL(`${process.env.JS_MODULES}/node_modules/@dapr/dapr/index.js`).href);
const { DaprClient, DaprServer, CommunicationProtocolEnum, HttpMethod } = dapr.default ?? dapr;

const { APP_ID, APP_PORT, DAPR_HTTP_PORT, DAPR_GRPC_PORT, PROTOCOL } = process.env;
const { HTTP, GRPC } = CommunicationProtocolEnum;
const options = (protocol) => ({
  daprHost: "127.0.0.1",
  daprPort: protocol === HTTP ? DAPR_HTTP_PORT : DAPR_GRPC_PORT,
  communicationProtocol: protocol,
});
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const protocol = PROTOCOL === "http" ? HTTP : GRPC;
const server = new DaprServer({
  serverHost: "127.0.0.1",
  serverPort: APP_PORT,
  communicationProtocol: protocol,
  clientOptions: options(protocol),
});
await server.invoker.listen("greet", async (r) => ({ app: APP_ID, got: JSON.parse(r.body) }), { method: HttpMethod.POST });
await server.invoker.listen("hello", async () => ({ app: APP_ID }), { method: HttpMethod.GET });
// over HTTP the SDK leaves a listener's failure to the process: there the method is one that nobody listens to
if (protocol === GRPC)
  await server.invoker.listen(
    "fail",
    async () => {
      throw new Error("not today");
    },
    { method: HttpMethod.POST },
  );
await server.start();

async function invoke(client, callee) {
  for (const text of ["grüße 世界", "ü".repeat(500000)]) {
    const sent = { from: APP_ID, text, n: [1, 2.5, null] };
    assert.deepEqual(await client.invoker.invoke(callee, "greet", HttpMethod.POST, sent), { app: callee, got: sent });
  }
  assert.deepEqual(await client.invoker.invoke(callee, "hello", HttpMethod.GET), { app: callee });
  await assert.rejects(client.invoker.invoke(callee, "fail", HttpMethod.POST, { a: 1 }));
}

const clients = { "js/http": new DaprClient(options(HTTP)), "js/grpc": new DaprClient(options(GRPC)) };
for (const callee of JSON.parse((await lines.next()).value).invoke)
  for (const [name, client] of Object.entries(clients))
    try {
      await invoke(client, callee);
      console.log("PASS", name, callee);
    } catch (e) {
      console.log("FAIL", name, callee, String(e).replaceAll("\n", " ").slice(0, 300));
    }
console.log("CALLED");
await lines.next();
process.exit(0);
