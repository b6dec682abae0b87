// The official JavaScript SDK against a sidecar: state and secrets over HTTP and gRPC. Ports come from the environment.
import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";
const dapr = await import(pathToFileURL(`${process.env.JS_MODULES}/node_modules/@dapr/dapr/index.js`).href);
const { DaprClient, CommunicationProtocolEnum } = dapr.default ?? dapr;

const doors = [
  [CommunicationProtocolEnum.HTTP, process.env.HTTP_PORT],
  [CommunicationProtocolEnum.GRPC, process.env.GRPC_PORT],
];
for (const [protocol, port] of doors) {
  const name = protocol === CommunicationProtocolEnum.HTTP ? "http" : "grpc";
  const client = new DaprClient({ daprHost: "127.0.0.1", daprPort: port, communicationProtocol: protocol });
  const key = (k) => `${name}-${k}`;

  test(`${name}: save, get, delete`, async () => {
    await client.state.save("store", [{ key: key("a"), value: { n: 1 } }, { key: key("b"), value: "text" }]);
    assert.deepEqual(await client.state.get("store", key("a")), { n: 1 });
    assert.equal(await client.state.get("store", key("b")), "text");
    await client.state.delete("store", key("a"));
    assert.ok(!(await client.state.get("store", key("a"))));
  });
  test(`${name}: bulk get`, async () => {
    await client.state.save("store", [{ key: key("x"), value: "1" }, { key: key("y"), value: "2" }]);
    const items = await client.state.getBulk("store", [key("x"), key("y")]);
    assert.deepEqual(items.map((i) => i.key).sort(), [key("x"), key("y")]);
  });
  test(`${name}: transaction`, async () => {
    await client.state.transaction("store", [
      { operation: "upsert", request: { key: key("t"), value: "yes" } },
      { operation: "delete", request: { key: key("b") } },
    ]);
    assert.equal(await client.state.get("store", key("t")), "yes");
  });
  test(`${name}: a wrong ETag is refused`, async () => {
    await client.state.save("store", [{ key: key("e"), value: "1" }]);
    const r = await client.state.save("store", [{ key: key("e"), value: "2", etag: "12345", options: { concurrency: 1 } }]).catch((error) => ({ error }));
    assert.ok(r && r.error, "the conflict must be reported");
  });
  test(`${name}: secrets`, async () => {
    assert.deepEqual(await client.secret.get("vault", "user"), { user: "ann" });
    assert.ok("user" in (await client.secret.getBulk("vault")));
  });
  test.after(() => client.stop());
}
