import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { ROOT } from "../build.js";
import { quickstart, tell } from "../story.js";
import { client, fresh, onServer, place } from "./place.js";

onServer("examples", (tenant) => {
  it("docs/sdk.md says what its examples do", async () => {
    const own = fresh("docs");
    try {
      await tell("docs/sdk.md", { ...place, tenant: own });
    } finally {
      await client(own).tenants.delete({ id: own });
    }
  }, 120_000);

  it("the quickstart runs", async () => {
    expect(await quickstart({ ...place, tenant })).toMatch(
      /^created quickstart-\w+ \w+\nready\nsession ses_\w+ until 20.*\nsnapshot {"sandbox":.*}\nthe sandbox read: hello\nfiles in \/:.* tmp .*\nclosed\nstopped\n$/,
    );
  }, 120_000);

  it("the quickstart runs in a project of its own", async () => {
    const env = { PATH: process.env["PATH"], HOME: process.env["HOME"], NIMBUS_ENDPOINT: place.url, NIMBUS_TOKEN: place.token, NIMBUS_TENANT: tenant, NIMBUS_IMAGE: place.image };
    const { stdout } = await promisify(execFile)(path.join(ROOT, "examples/quickstart/run.sh"), { env });
    expect(stdout).toMatch(/^created .*\nstopped\n$/s);
  }, 120_000);
});
