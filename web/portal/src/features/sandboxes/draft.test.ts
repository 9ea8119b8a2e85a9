import { describe, expect, it } from "vitest";
import { quoteWord, splitCommand } from "./argv";
import { EMPTY, problems, toRequest } from "./draft";
import { imageName, slugOf } from "./name";
import { cliSnippet, curlSnippet, sdkSnippet } from "./snippets";

const OPEN = { resources: true, ports: true, egress: true, mounts: true };
const SEALED = { resources: false, ports: false, egress: false, mounts: false };

describe("splitCommand", () => {
  it("splits as a shell does", () => {
    expect(splitCommand("python -c 'print(1, 2)'")).toEqual(["python", "-c", "print(1, 2)"]);
    expect(splitCommand('a "b \\" c"  d\\ e ""')).toEqual(["a", 'b " c', "d e", ""]);
    expect(splitCommand("   ")).toEqual([]);
    expect(splitCommand("echo 'open")).toBeNull();
  });

  it("is undone by quoting", () => {
    const words = ["sh", "-c", "echo it's $HOME", ""];
    expect(splitCommand(words.map(quoteWord).join(" "))).toEqual(words);
  });
});

describe("draft", () => {
  const full = {
    ...EMPTY,
    name: "batch job",
    image: "python:3.12-slim",
    run: "command" as const,
    command: "python -V",
    ttl: "900000",
    idle: "600000",
    vcpus: "0.5",
    memoryMib: "512",
    ports: [{ port: "8080", protocol: "http" as const }],
    env: [{ name: "A", value: "b c" }],
    secrets: [{ secret: "token", variable: "TOKEN" }],
    egress: [{ protocol: "https" as const, host: "pypi.org", port: "443" }],
    volumes: [{ name: "data", target: "/data" }],
    labels: [{ name: "team", value: "search" }],
  };

  it("becomes the request", () => {
    expect(problems(full)).toEqual({});
    expect(toRequest(full, OPEN)).toEqual({
      profile: "worker",
      spec: {
        owner: { kind: "standalone", displayName: "batch job" },
        backend: "container",
        root: { kind: "oci_image", source: { kind: "reference", reference: "python:3.12-slim" } },
        process: { argv: ["python", "-V"], env: ["A=b c"], secrets: [{ secret: "token", variable: "TOKEN" }] },
        resources: { vcpus: 0.5, memoryBytes: 536_870_912 },
        ports: [{ guestPort: 8080, protocol: "http" }],
        network: { egress: { allow: [{ name: "pypi.org-443", protocol: "https", host: "pypi.org", port: 443 }] } },
        mounts: [{ kind: "volume", name: "data", target: "/data" }],
        ttlMs: 900_000,
        idleTimeoutMs: 600_000,
      },
      labels: { team: "search" },
    });
  });

  it("leaves out what the policy forbids, and what is as it is anyway", () => {
    const { spec } = toRequest(full, SEALED);
    expect(Object.keys(spec).sort()).toEqual(["backend", "idleTimeoutMs", "owner", "process", "root", "ttlMs"]);
    expect(toRequest({ ...EMPTY, image: "busybox:1", ttl: "none" }, OPEN)).toEqual({
      profile: "worker",
      spec: {
        owner: { kind: "standalone" },
        backend: "container",
        root: { kind: "oci_image", source: { kind: "reference", reference: "busybox:1" } },
        process: { argv: ["sleep", "infinity"] },
      },
    });
    expect(toRequest({ ...EMPTY, image: "busybox:1", run: "image", ttl: "none" }, OPEN).spec).not.toHaveProperty("process");
  });

  it("says what is wrong", () => {
    expect(problems(EMPTY)).toEqual({ image: "Enter an image." });
    const wrong = problems({ ...full, image: "https://x/y", command: "'", vcpus: "many", ports: [{ port: "0", protocol: "tcp" }], env: [{ name: "1A", value: "" }], egress: [{ protocol: "tcp", host: "a/b", port: "1" }] });
    expect(Object.keys(wrong).sort()).toEqual(["command", "egress", "env", "image", "ports", "vcpus"]);
    expect(problems({ ...full, env: [{ name: "NIMBUS_SANDBOX_ID", value: "x" }] }).env).toMatch(/taken/);
  });

  it("is said by SDK, command line and curl", () => {
    const request = toRequest(full, OPEN);
    expect(cliSnippet(request, "ten_1").replaceAll(" \\\n  ", " ")).toBe(
      "nimbus sandbox create python:3.12-slim --tenant ten_1 --name 'batch job' --ttl 15m --idle-timeout 10m --cpus 0.5 --memory 512MiB --port 8080/http --env 'A=b c' --secret token=TOKEN --allow https://pypi.org:443 --volume data:/data --label team=search -- python -V",
    );
    expect(sdkSnippet(request, "http://n", "ten_1")).toContain('displayName: "batch job"');
    const curl = curlSnippet({ ...request, labels: { note: "it's" } }, "http://n", "ten_1");
    const body = /-d '([\s\S]*)'$/.exec(curl)?.[1]?.replaceAll(`'\\''`, "'");
    expect(JSON.parse(body ?? "")).toEqual({ ...request, labels: { note: "it's" } });
  });
});

describe("names", () => {
  it("shortens what is known anyway", () => {
    expect(imageName("docker.io/library/python:3.12-slim")).toBe("python:3.12-slim");
    expect(imageName("ghcr.io/a/b:1@sha256:0123456789abcdef")).toBe("ghcr.io/a/b:1@sha256:01234567…");
    expect(slugOf("batch-job-01jzzzzzzzzzzzzzzzzzzzzzzz")).toBe("batch-job");
    expect(slugOf("odd")).toBe("odd");
  });
});
