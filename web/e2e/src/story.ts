import { test as base, expect, type Locator, type Page } from "@playwright/test";
import { World, type Options, type User } from "./world";

export { expect };
export type { Locator, Page };

interface Fixtures {
  /** Fails the test when a page breaks, or breaks the rules it was served with. */
  sound: undefined;
}

/** Tests of one file, with a server of their own. */
export function story(name: string, options: Options = {}) {
  return base.extend<Fixtures, { world: World }>({
    world: [
      async ({}, use) => {
        const world = await World.start(name, options);
        await use(world);
        await world.stop();
      },
      { scope: "worker", timeout: 120_000 },
    ],
    baseURL: async ({ world }, use) => {
      await use(world.url);
    },
    sound: [
      async ({ context }, use) => {
        const broken: string[] = [];
        context.on("weberror", (error) => broken.push(error.error().message));
        context.on("console", (message) => {
          // A failed request is logged by the browser itself, and is part of some stories.
          if (message.type() === "error" && !/Failed to load resource|net::ERR_/.test(message.text())) broken.push(message.text());
        });
        await use(undefined);
        expect(broken, "errors on the page").toEqual([]);
      },
      { auto: true },
    ],
  });
}

/** Gives the browser a session without going through the form. */
export async function signIn(page: Page, user: User): Promise<void> {
  const answer = await page.request.post("/api/auth/login", { data: { email: user.email, password: user.password } });
  expect(answer.status(), await answer.text()).toBe(200);
}

export function title(page: Page, name: string | RegExp): Locator {
  return page.getByRole("heading", { level: 1, name, ...(typeof name === "string" ? { exact: true } : {}) });
}

/** The steps of what runs on the page. */
export function steps(page: Page): Locator {
  return page.getByRole("list", { name: "Progress" }).getByRole("listitem");
}

export const PROVISION = [
  "Reserve address",
  "Pick node",
  "Clone template",
  "Configure cloud-init",
  "Resize disk",
  "Start VM",
  "Wait for guest",
  "Commit address",
  "Prepare GPU access",
  "Finish",
] as const;

/** Chooses something from the menu of a machine. */
export async function choose(page: Page, machine: string, entry: string): Promise<void> {
  await page.getByRole("button", { name: `Actions for ${machine}` }).click();
  await page.getByRole("menuitem", { name: entry }).click();
}

/** The row of a machine in the list. */
export function row(page: Page, machine: string): Locator {
  return page.getByRole("grid", { name: "Machines" }).getByRole("row", { name: machine });
}
