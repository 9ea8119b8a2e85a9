import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/build.ts"],
    // A sandbox of the end-to-end suite may have to be pulled and started first.
    testTimeout: 20_000,
    hookTimeout: 90_000,
    unstubEnvs: true,
  },
});
