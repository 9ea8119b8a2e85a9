// Creates a sandbox, waits until it is ready, talks to it through a session, and takes it away again.
//
//   NIMBUS_ENDPOINT, NIMBUS_TOKEN   where the server is and who asks
//   NIMBUS_TENANT                   default demo
//   NIMBUS_IMAGE                    default docker.io/library/node:22-alpine; any image with `sleep` and `sh` will do
import { setTimeout as pause } from "node:timers/promises";
import { Nimbus } from "@nimbus/nimbus";

const nimbus = new Nimbus({
  endpoint: process.env.NIMBUS_ENDPOINT ?? "http://127.0.0.1:8080",
  token: process.env.NIMBUS_TOKEN,
  tenantId: process.env.NIMBUS_TENANT ?? "demo",
});

const created = await nimbus.sandboxes.create({
  profile: "worker",
  spec: {
    owner: { kind: "standalone", displayName: "quickstart" },
    backend: "container",
    root: { kind: "oci_image", source: { kind: "reference", reference: process.env.NIMBUS_IMAGE ?? "docker.io/library/node:22-alpine" } },
    process: { argv: ["sleep", "600"] },
  },
  labels: { example: "quickstart" },
});
const { id } = created.metadata;
console.log("created", id, created.status.lifecycleState);

// `await created.wait("ready")` does the same, with a deadline that fits a server that has the image already.
let sandbox = created;
while (sandbox.status.lifecycleState !== "ready") {
  if (sandbox.status.lifecycleState === "failed") throw new Error(JSON.stringify(sandbox.status.conditions));
  await pause(250);
  sandbox = await nimbus.sandboxes.get({ id });
}
console.log("ready");

const session = await nimbus.sessions.open({
  target: { sandbox: { id } },
  channels: ["stdio", "files"],
  requestedTtlMs: 5 * 60_000,
});
console.log("session", session.metadata.id, "until", session.spec.expiresAt);
console.log("snapshot", JSON.stringify(session.spec.targetSnapshot));

// Bytes in, bytes out: a process of its own for this attachment.
const stdio = await session.stdio({ argv: ["sh", "-c", 'read line; echo "the sandbox read: $line"'] });
const writer = stdio.stdin.getWriter();
await writer.write("hello\n");
await writer.close();
process.stdout.write(await new Response(stdio.stdout).text());
const names = [];
for await (const entry of session.files.list("/")) names.push(entry.name);
console.log("files in /:", names.join(" "));

await nimbus.sessions.close({ id: session.metadata.id, reason: "done" });
console.log("closed");
await nimbus.sandboxes.stop({ id });
console.log("stopped");
