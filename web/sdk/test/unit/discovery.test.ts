import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { discover } from "../../src/discovery.js";
import { Nimbus, NimbusDiscoveryError, NimbusInputError } from "../../src/index.js";
import { FakeNimbus } from "../fake/server.mjs";
import { failureOf } from "../world.js";

const VARIABLES = [
  "NIMBUS_ENDPOINT",
  "NIMBUS_TOKEN",
  "NIMBUS_BEARER_TOKEN",
  "NIMBUS_API_KEY",
  "NIMBUS_WORKLOAD_IDENTITY_TOKEN",
  "NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE",
  "NIMBUS_APPLICATION_CREDENTIALS",
  "XDG_CONFIG_HOME",
  "USERPROFILE",
];

let folder = "";

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "nimbus-sdk-"));
  for (const name of VARIABLES) vi.stubEnv(name, "");
  vi.stubEnv("HOME", folder);
});

afterEach(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

function file(name: string, content: unknown): string {
  const where = path.join(folder, name);
  fs.mkdirSync(path.dirname(where), { recursive: true });
  fs.writeFileSync(where, typeof content === "string" ? content : JSON.stringify(content));
  return where;
}

async function found(options: Parameters<typeof discover>[0] = {}): Promise<{ endpoint: string; header: readonly [string, string] | undefined }> {
  const target = await discover(options, false);
  return { endpoint: target.endpoint, header: await target.authorization() };
}

const DEFAULT_FILE = ".config/nimbus/application_default_credentials.json";

describe("endpoint", () => {
  it("is taken from option, then environment, then file", async () => {
    file(DEFAULT_FILE, { endpoint: "http://file:1", token: "t" });
    expect((await found()).endpoint).toBe("http://file:1");
    vi.stubEnv("NIMBUS_ENDPOINT", "http://environment:1");
    expect((await found()).endpoint).toBe("http://environment:1");
    expect((await found({ endpoint: "http://option:1/" })).endpoint).toBe("http://option:1");
  });

  it("keeps the path of a proxy and refuses what is no address of a server", async () => {
    expect((await found({ endpoint: "https://example.org/nimbus/", token: "t" })).endpoint).toBe("https://example.org/nimbus");
    for (const endpoint of ["127.0.0.1:8080", "ftp://example.org", "nonsense", "http://user:secret@example.org"]) {
      expect(await failureOf(found({ endpoint, token: "t" }))).toBeInstanceOf(NimbusDiscoveryError);
    }
  });
});

describe("credential", () => {
  const endpoint = "http://127.0.0.1:1";

  it("is taken in the documented order", async () => {
    const token = file("workload", " from-token-file \n");
    vi.stubEnv("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE", token);
    expect((await found({ endpoint })).header).toEqual(["authorization", "Bearer from-token-file"]);
    file(DEFAULT_FILE, { access_token: "from-file" });
    expect((await found({ endpoint })).header).toEqual(["authorization", "Bearer from-file"]);
    vi.stubEnv("NIMBUS_WORKLOAD_IDENTITY_TOKEN", "workload");
    expect((await found({ endpoint })).header).toEqual(["authorization", "Bearer workload"]);
    vi.stubEnv("NIMBUS_API_KEY", "key");
    expect((await found({ endpoint })).header).toEqual(["x-nimbus-api-key", "key"]);
    vi.stubEnv("NIMBUS_BEARER_TOKEN", "bearer");
    expect((await found({ endpoint })).header).toEqual(["authorization", "Bearer bearer"]);
    vi.stubEnv("NIMBUS_TOKEN", "token");
    expect((await found({ endpoint })).header).toEqual(["authorization", "Bearer token"]);
    expect((await found({ endpoint, apiKey: "option-key" })).header).toEqual(["x-nimbus-api-key", "option-key"]);
    expect((await found({ endpoint, apiKey: "option-key", token: "option" })).header).toEqual(["authorization", "Bearer option"]);
    const explicit = { kind: "workload_identity", token: "explicit", issuer: "i" } as const;
    expect((await found({ endpoint, token: "option", credential: explicit })).header).toEqual(["authorization", "Bearer explicit"]);
  });

  it("in a file may be nested, and then wins over the top level", async () => {
    const where = file("elsewhere.json", { endpoint, token: "top", credential: { type: "api_key", apiKey: "nested" } });
    vi.stubEnv("NIMBUS_APPLICATION_CREDENTIALS", where);
    expect(await found()).toEqual({ endpoint, header: ["x-nimbus-api-key", "nested"] });
    file("elsewhere.json", { endpoint, credential: { kind: "access_token", access_token: "nested" } });
    expect((await found()).header).toEqual(["authorization", "Bearer nested"]);
    file("elsewhere.json", { endpoint, api_key: "flat" });
    expect((await found()).header).toEqual(["x-nimbus-api-key", "flat"]);
  });

  it("file that is broken is named, and not quoted", async () => {
    const where = file(DEFAULT_FILE, '{"token": "secret-of-mine",');
    const error = await failureOf(found({ endpoint }));
    expect(error).toBeInstanceOf(NimbusDiscoveryError);
    expect(String(error)).toContain(where);
    expect(String(error)).not.toContain("secret-of-mine");
    file(DEFAULT_FILE, { credential: { kind: "password" } });
    expect(String(await failureOf(found({ endpoint })))).toContain("credential.kind");
  });

  it("file is not read when nothing is missing", async () => {
    file(DEFAULT_FILE, "not json");
    expect((await found({ endpoint, token: "t" })).header).toEqual(["authorization", "Bearer t"]);
  });

  it("token file is read again after a minute", async () => {
    const token = file("workload", "one");
    vi.stubEnv("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE", token);
    let now = 0;
    const target = await discover({ endpoint }, false, () => now);
    fs.writeFileSync(token, "two");
    now = 59_000;
    expect(await target.authorization()).toEqual(["authorization", "Bearer one"]);
    now = 60_000;
    expect(await target.authorization()).toEqual(["authorization", "Bearer two"]);
  });

  it("that is missing is an error that names what to set", async () => {
    const error = await failureOf(found({ endpoint }));
    for (const name of ["token", "apiKey", "credential", "NIMBUS_TOKEN", "NIMBUS_API_KEY", "NIMBUS_APPLICATION_CREDENTIALS"]) {
      expect(String(error)).toContain(name);
    }
    expect(String(await failureOf(found({ token: "t" })))).toContain("NIMBUS_ENDPOINT");
  });
});

describe("client", () => {
  it("does nothing when made; defaultClient throws early", async () => {
    expect(new Nimbus().tenantId).toBeUndefined();
    expect(await failureOf(Nimbus.defaultClient())).toBeInstanceOf(NimbusDiscoveryError);
    expect((await Nimbus.defaultClient({ endpoint: "http://127.0.0.1:1", token: "t", tenantId: "demo" })).tenantId).toBe("demo");
  });

  it("forgets a failed discovery", async () => {
    const fake = await FakeNimbus.start();
    try {
      const nimbus = new Nimbus({ tenantId: "demo" });
      expect(await failureOf(nimbus.tenants.list())).toBeInstanceOf(NimbusDiscoveryError);
      vi.stubEnv("NIMBUS_ENDPOINT", fake.url);
      vi.stubEnv("NIMBUS_TOKEN", fake.token);
      expect(await nimbus.tenants.list()).toEqual([]);
    } finally {
      await fake.stop();
    }
  });

  it("lets extra headers win, and takes one that authorises for a credential", async () => {
    const fake = await FakeNimbus.start();
    try {
      const nimbus = new Nimbus({ endpoint: fake.url, headers: { Authorization: `Bearer ${fake.token}`, "X-Extra": "1", Accept: "application/json; q=1" } });
      await nimbus.tenants.list();
      expect(fake.requests[0]?.headers).toMatchObject({ "x-extra": "1", accept: "application/json; q=1" });
      await new Nimbus({ endpoint: fake.url, apiKey: fake.apiKey }).tenants.list();
      expect(fake.requests[1]?.headers["x-nimbus-api-key"]).toBe(fake.apiKey);
      expect(fake.requests[1]?.headers["authorization"]).toBeUndefined();
    } finally {
      await fake.stop();
    }
  });

  it("needs a tenant before any request", async () => {
    const nimbus = new Nimbus({ endpoint: "http://127.0.0.1:1", token: "t" });
    const error = await failureOf(nimbus.services.get({ name: "worker" }));
    expect(error).toBeInstanceOf(NimbusInputError);
    expect(String(error)).toContain("tenantId");
    expect(await failureOf(nimbus.sandboxes.list())).toBeInstanceOf(NimbusInputError);
  });
});
