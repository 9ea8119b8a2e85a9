import { describe, expect, it } from "vitest";
import { hostnameProblem, nextHostname, repairHostname, suggestHostname } from "./hostname";

describe("hostnameProblem", () => {
  it.each(["a", "web-1", "0", "x".repeat(63), "1a-b-2"])("takes %s", (name) => {
    expect(hostnameProblem(name)).toBeNull();
  });

  it.each([
    ["", "Enter"],
    ["-web", "Start with"],
    ["web-", "End with"],
    ["Web", "lower case"],
    ["web 1", "hyphen"],
    ["web.example", "“.”"],
    ["web_1", "“_”"],
    ["wéb", "“é”"],
    ["x".repeat(64), "64"],
  ])("explains what is wrong with %j", (name, words) => {
    expect(hostnameProblem(name)).toContain(words);
  });

  it("agrees with the rule of the API", () => {
    const rule = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
    const letters = ["a", "Z", "0", "-", ".", " ", "_", "ü"];
    for (const a of letters) {
      for (const b of letters) {
        for (const c of ["", ...letters]) {
          const name = a + b + c;
          expect(hostnameProblem(name) === null, name).toBe(rule.test(name));
        }
      }
    }
  });
});

describe("repairHostname", () => {
  it.each([
    ["Web Server", "web-server"],
    ["Müller's Box", "muller-s-box"],
    ["straße", "strasse"],
    ["--x--", "x"],
    ["a_b.c", "a-b-c"],
  ])("turns %j into %s", (typed, fixed) => {
    expect(repairHostname(typed)).toBe(fixed);
    expect(hostnameProblem(fixed)).toBeNull();
  });

  it("has nothing to offer for what is valid or hopeless", () => {
    expect(repairHostname("web-1")).toBeNull();
    expect(repairHostname("___")).toBeNull();
  });

  it("never ends a cut name with a hyphen", () => {
    const fixed = repairHostname(`${"x".repeat(62)} yz`);
    expect(fixed).not.toBeNull();
    expect(hostnameProblem(fixed ?? "")).toBeNull();
  });
});

describe("suggestions", () => {
  it("are valid and free", () => {
    const name = suggestHostname(new Set(), () => 0);
    expect(hostnameProblem(name)).toBeNull();
    expect(suggestHostname(new Set([name]), () => 0)).not.toBe(name);
  });

  it("count on from a taken name", () => {
    expect(nextHostname("web", new Set(["web"]))).toBe("web-2");
    expect(nextHostname("web-2", new Set(["web-2", "web-3"]))).toBe("web-4");
  });
});
