// An app of the JavaScript SDK: its server side takes events and bindings, its client side does the rest. Prints "OK <step>".
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { pathToFileURL } from "node:url";
const dapr = await import(pathToFileURL(`${process.env.JS_MODULES}/node_modules/@dapr/dapr/index.js`).href);
const { DaprClient, DaprServer, CommunicationProtocolEnum } = dapr.default ?? dapr;

const { APP_PORT, DAPR_HTTP_PORT, DAPR_GRPC_PORT, REDIS_PORT, PROTOCOL } = process.env;
const http = PROTOCOL === "http";
const communicationProtocol = http ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC;
const clientOptions = { daprHost: "127.0.0.1", daprPort: http ? DAPR_HTTP_PORT : DAPR_GRPC_PORT, communicationProtocol };
const seen = [];
const done = (step) => console.log("OK " + step);
const redis = (...words) => execFileSync("redis-cli", ["-p", REDIS_PORT, ...words]);

async function until(what, check) {
  for (const end = Date.now() + 20000; !check(); await new Promise((r) => setTimeout(r, 20)))
    if (Date.now() > end) throw new Error(`${what} did not come; came: ${JSON.stringify(seen)}`);
}
const expect = (where, data) =>
  until(`${where} ${JSON.stringify(data)}`, () => seen.some((s) => s[0] === where && JSON.stringify(s[1]) === JSON.stringify(data)));

async function events(client) {
  await client.pubsub.publish("pub", "programmatic", { n: 1 });
  await expect("programmatic", { n: 1 });
  done("publish, programmatic subscription");
  await client.pubsub.publish("pub", "declared", "text");
  await expect("declared", "text");
  done("declarative subscription");
  const r = await client.pubsub.publishBulk("pub", "programmatic", [{ n: 21 }, { n: 22 }, { n: 23 }]);
  assert.equal(r.failedMessages.length, 0);
  for (const n of [21, 22, 23]) await expect("programmatic", { n });
  done("bulk publish");
  if (http) {
    await client.pubsub.publishBulk("pub", "bulk", [{ b: 1 }, { b: 2 }]);
    for (const b of [1, 2]) await expect("bulk", { b });
    done("bulk subscription");
  }
}

async function bindings(client) {
  await until("tick", () => seen.some((s) => s[0] === "tick"));
  await client.binding.send("files", "create", "kept!", { fileName: "a.txt" });
  const read = await client.binding.send("files", "get", "", { fileName: "a.txt" });
  assert.match(JSON.stringify(read), http ? /kept!/ : /./);
  done("bindings");
}

async function configuration(client) {
  redis("SET", "color", "red||1");
  assert.equal((await client.configuration.get("cfg", ["color"])).items.color.value, "red");
  const stream = await client.configuration.subscribeWithKeys("cfg", ["color"], async (r) => {
    seen.push(["color", r.items.color.value]);
  });
  for (let i = 0; i < 100 && !seen.some((s) => s[1] === "blue"); i++) {
    redis("SET", "color", "blue||2");
    await new Promise((r) => setTimeout(r, 50));
  }
  await expect("color", "blue");
  await stream.stop();
  done("configuration");
}

async function locks(client) {
  assert.equal((await client.lock.lock("locks", "r", "me", 30)).success, true);
  assert.equal((await client.lock.lock("locks", "r", "you", 30)).success, false);
  await client.lock.unlock("locks", "r", "me");
  assert.equal((await client.lock.lock("locks", "r", "you", 30)).success, true);
  done("lock");
}

async function crypto(client) {
  const text = randomBytes(300000);
  const secret = await client.crypto.encrypt(text, { componentName: "vault", keyName: "aes256", keyWrapAlgorithm: "AES" });
  assert.ok(secret.subarray(0, 14).toString() === "dapr.io/enc/v1");
  assert.ok(text.equals(await client.crypto.decrypt(secret, { componentName: "vault" })));
  done("crypto");
}

const server = new DaprServer({ serverHost: "127.0.0.1", serverPort: APP_PORT, communicationProtocol, clientOptions });
const take = (where) => async (data) => void seen.push([where, data]);
await server.pubsub.subscribe("pub", "programmatic", take("programmatic"));
await server.pubsub.subscribe("pub", "declared", take("declared"), "/declared");
if (http) await server.pubsub.subscribeBulk("pub", "bulk", take("bulk"), { maxMessagesCount: 10, maxAwaitDurationMs: 100 });
await server.binding.receive("tick", take("tick"));
await server.start();
const client = new DaprClient(clientOptions);
try {
  await events(client);
  await bindings(client);
  await locks(client);
  if (!http) {
    await configuration(client);
    await crypto(client);
  }
} catch (e) {
  console.log(e);
  process.exit(1);
}
process.exit(0);
