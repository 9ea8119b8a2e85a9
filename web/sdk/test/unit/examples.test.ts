import { expect, it } from "vitest";
import { FakeNimbus } from "../fake/server.mjs";
import { quickstart, tell, type Place } from "../story.js";

async function withFake(work: (place: Place) => Promise<void>): Promise<void> {
  const fake = await FakeNimbus.start();
  try {
    await work({ url: fake.url, token: fake.token, tenant: "demo", image: "example.org/image:1" });
  } finally {
    await fake.stop();
  }
}

it("docs/sdk.md says what its examples do", () => withFake((place) => tell("docs/sdk.md", place)), 60_000);

it("the quickstart runs", () =>
  withFake(async (place) => {
    await fetch(`${place.url}/api/tenants`, { method: "POST", headers: { authorization: `Bearer ${place.token}` }, body: '{"id":"demo"}' });
    const printed = await quickstart(place);
    expect(printed).toMatch(
      /^created quickstart-\w+ starting\nready\nsession ses_\w+ until 20.*\nsnapshot {"sandbox":.*}\nthe sandbox read: hello\nfiles in \/:.*\nclosed\nstopped\n$/,
    );
  }), 60_000);
