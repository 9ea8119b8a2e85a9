import { defineConfig } from "@playwright/test";
import { OUTPUT } from "./src/paths";

// Debian's Chromium; nothing is downloaded, and nothing it does on its own leaves this computer.
const executablePath = process.env["NIMBUS_CHROMIUM"] ?? "/usr/bin/chromium";

export default defineConfig({
  testDir: "tests",
  outputDir: `${OUTPUT}/failures`,
  // Each file owns a server, so two files at a time is what two cores carry.
  workers: 2,
  fullyParallel: false,
  forbidOnly: true,
  // On a busy runner a story gets a second try, and is reported as flaky: which is a bug to be found.
  retries: process.env.CI === "true" ? 1 : 0,
  timeout: 60_000,
  // Five times what all of them take: with a server that answers nothing, each story would wait for its own end.
  globalTimeout: 25 * 60_000,
  expect: { timeout: 20_000 },
  reporter: [["list", { printSteps: false }]],
  use: {
    browserName: "chromium",
    viewport: { width: 1440, height: 900 },
    actionTimeout: 20_000,
    navigationTimeout: 30_000,
    permissions: ["clipboard-read", "clipboard-write"],
    screenshot: "only-on-failure",
    trace: "retain-on-failure",
    contextOptions: { reducedMotion: "reduce" },
    launchOptions: {
      executablePath,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
      ],
    },
  },
});
