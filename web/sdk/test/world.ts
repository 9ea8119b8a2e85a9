import { WebSocket as NodeWebSocket } from "ws";
import { Nimbus, type NimbusClientOptions, type NimbusSandboxSpec } from "../src/index.js";
import { FakeNimbus } from "./fake/server.mjs";

/** The WebSocket that browsers and newer Nodes have built in. */
export const socketClass = NodeWebSocket as unknown as typeof WebSocket;

export interface World extends AsyncDisposable {
  readonly fake: FakeNimbus;
  readonly nimbus: Nimbus;
  client(options?: NimbusClientOptions): Nimbus;
}

/** A server of one's own with a tenant `demo`, and a client for it. */
export async function world(): Promise<World> {
  const fake = await FakeNimbus.start();
  const client = (options: NimbusClientOptions = {}): Nimbus => new Nimbus({ endpoint: fake.url, token: fake.token, tenantId: "demo", ...options });
  const nimbus = client();
  await nimbus.tenants.create({ id: "demo" });
  fake.requests.length = 0;
  return { fake, nimbus, client, [Symbol.asyncDispose]: () => fake.stop() };
}

/** A sandbox that runs `argv`. */
export function spec(argv: readonly string[] = ["sh", "-c", "cat >/dev/null"], displayName = "box"): NimbusSandboxSpec {
  return {
    owner: { kind: "standalone", displayName },
    backend: "container",
    root: { kind: "oci_image", source: { kind: "reference", reference: "example.org/image:1" } },
    process: { argv },
  };
}

/** The error that `work` fails with. */
export async function failureOf(work: PromiseLike<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("it was expected to fail");
}

/** Everything of an async iterable. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** All bytes of a stream as text. */
export async function textOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  return new Response(stream).text();
}
