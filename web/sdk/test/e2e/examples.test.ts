import { expect, it } from "vitest";
import { quickstart, tell } from "../story.js";
import { fresh, onServer, place } from "./place.js";

onServer("examples", (tenant) => {
  it("docs/sdk.md says what its examples do", () => tell("docs/sdk.md", { ...place, tenant: fresh("docs") }), 120_000);

  it("the quickstart runs", async () => {
    expect(await quickstart({ ...place, tenant })).toMatch(
      /^created quickstart-\w+ \w+\nready\nsession ses_\w+ until 20.*\nsnapshot {"sandbox":.*}\nthe sandbox read: hello\nfiles in \/:.* tmp .*\nclosed\nstopped\n$/,
    );
  }, 120_000);
});
