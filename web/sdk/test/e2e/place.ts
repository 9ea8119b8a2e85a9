import net from "node:net";
import { afterAll, beforeAll, describe } from "vitest";
import { Nimbus, type NimbusClientOptions, type NimbusSandbox, type NimbusSandboxSpec } from "../../src/index.js";
import { freshKey } from "../../src/transport.js";

const { NIMBUS_ENDPOINT: url, NIMBUS_TOKEN: token, NIMBUS_TEST_IMAGE: image } = process.env;

/** How long an image may take to be pulled and a sandbox to start. */
export const START = { timeoutMs: 60_000 };

/** The server that the environment names. */
export const place = { url: url ?? "", token: token ?? "", image: image ?? "" };

/** A name that no other run has. */
export function fresh(prefix: string): string {
  return `${prefix}-${freshKey().slice(0, 8)}`;
}

export function client(tenantId: string, options: NimbusClientOptions = {}): Nimbus {
  return new Nimbus({ endpoint: place.url, token: place.token, tenantId, ...options });
}

/** A sandbox that runs `argv`. */
export function spec(argv: readonly string[] = ["sleep", "600"], displayName = "box"): NimbusSandboxSpec {
  return {
    owner: { kind: "standalone", displayName },
    backend: "container",
    root: { kind: "oci_image", source: { kind: "reference", reference: place.image } },
    process: { argv },
  };
}

export async function running(nimbus: Nimbus, argv?: readonly string[]): Promise<NimbusSandbox> {
  return (await nimbus.sandboxes.create({ profile: "worker", spec: spec(argv) })).wait("ready", START);
}

/** Tests against a real server, in a tenant of their own; left out when the environment names none. */
export function onServer(name: string, tests: (tenant: string, nimbus: Nimbus) => void): void {
  const there = place.url !== "" && place.token !== "" && place.image !== "";
  describe.skipIf(!there)(name, () => {
    const tenant = fresh("sdk");
    const nimbus = client(tenant);
    beforeAll(() => nimbus.tenants.create({ id: tenant }));
    afterAll(() => nimbus.tenants.delete({ id: tenant }));
    tests(tenant, nimbus);
  });
}

/** A way to the server that breaks each connection after so many bytes of answer, until the list is used up. */
export async function breaking(...limits: number[]): Promise<AsyncDisposable & { readonly url: string; readonly broken: number }> {
  const to = new URL(place.url);
  const sockets = new Set<net.Socket>();
  const state = { broken: 0 };
  const server = net.createServer((near) => {
    const far = net.connect(Number(to.port), to.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined).on("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far);
    let left = limits.shift() ?? Infinity;
    far.on("data", (data: Buffer) => {
      near.write(data.subarray(0, left));
      left -= data.length;
      if (left > 0) return;
      state.broken += 1;
      near.end();
      far.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    get broken() {
      return state.broken;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
