import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { expect, type Page } from "@playwright/test";
import { SCREENSHOTS } from "./paths";

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

interface Finding {
  id: string;
  help: string;
  nodes: { html: string; failureSummary?: string }[];
}

/** What axe has against the page as it is, in words. */
export async function findings(page: Page): Promise<string[]> {
  const there = await page.evaluate(() => "axe" in window);
  if (!there) await page.evaluate(AXE);
  const found = await page.evaluate(async (values) => {
    const axe = (window as unknown as { axe: { run(where: Document, options: object): Promise<{ violations: Finding[] }> } }).axe;
    return (await axe.run(document, { runOnly: values, resultTypes: ["violations"] })).violations;
  }, RULES);
  return found.flatMap((item) => item.nodes.map((node) => `${item.id}: ${item.help}: ${node.html} (${node.failureSummary ?? ""})`));
}

const SIZES = [
  { width: 1440, height: 900 },
  { width: 390, height: 844 },
] as const;

/**
 * Looks at the page in both themes, at a desk and on a phone: nothing for axe to say, nothing wider
 * than the screen, and a picture to be looked at by a person.
 */
export async function look(page: Page, name: string, options: { whole?: boolean } = {}): Promise<void> {
  for (const size of SIZES) {
    await page.setViewportSize(size);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const file = `${name}-${size.width}-${colorScheme}.png`;
      await page.screenshot({ path: path.join(SCREENSHOTS, file), fullPage: options.whole ?? true, animations: "disabled" });
      // Colours do not depend on the width, so the phone needs no second look.
      if (size.width > 1000 || colorScheme === "light") expect.soft(await findings(page), `${file}: what axe has against it`).toEqual([]);
    }
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect.soft(wider, `${name} is wider than a screen of ${size.width}`).toBe(0);
  }
  await page.setViewportSize(SIZES[0]);
}
