import { execFileSync } from "node:child_process";
import path from "node:path";
import { expect, it } from "vitest";
import { ROOT } from "../build.js";
import { quickstart, tell } from "../story.js";
import { fresh, onServer, place } from "./place.js";

onServer("examples", (tenant) => {
  it("docs/sdk.md says what its examples do", () => tell("docs/sdk.md", { ...place, tenant: fresh("docs") }), 120_000);

  it("the quickstart runs", async () => {
    expect(await quickstart({ ...place, tenant })).toMatch(
      /^created quickstart-\w+ \w+\nready\nsession ses_\w+ until 20.*\nsnapshot {"sandbox":.*}\nthe sandbox read: hello\nfiles in \/:.* tmp .*\nclosed\nstopped\n$/,
    );
  }, 120_000);

  it("the quickstart runs in a project of its own", () => {
    const env = { PATH: process.env["PATH"], HOME: process.env["HOME"], NIMBUS_ENDPOINT: place.url, NIMBUS_TOKEN: place.token, NIMBUS_TENANT: tenant, NIMBUS_IMAGE: place.image };
    expect(execFileSync(path.join(ROOT, "examples/quickstart/run.sh"), { env, encoding: "utf8" })).toMatch(/^created .*\nstopped\n$/s);
  }, 120_000);
});
