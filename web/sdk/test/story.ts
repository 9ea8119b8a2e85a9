import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import ts from "typescript";
import { expect } from "vitest";
import { ROOT, SDK } from "./build.js";

/** A server to run examples against. */
export interface Place {
  readonly url: string;
  readonly token: string;
  readonly tenant: string;
  readonly image: string;
}

/** The TypeScript of a page, in order, as one program. */
export function examplesOf(page: string): string {
  const text = fs.readFileSync(path.join(ROOT, page), "utf8");
  return Array.from(text.matchAll(/^```ts\n(.*?)^```/gms), (match) => match[1] ?? "").join("\n");
}

/** What the examples say that they print: one line for each `; ` in `// → …`; `…` stands for anything. */
function promised(source: string): RegExp[] {
  return Array.from(source.matchAll(/\/\/ → (.*)$/gm), (match) => match[1] ?? "")
    .flatMap((line) => line.split("; "))
    .map((line) => new RegExp(`^${line.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("…", ".*")}$`));
}

function adapted(source: string, place: Place): string {
  return source.replaceAll("http://127.0.0.1:8080", place.url).replaceAll('"demo"', JSON.stringify(place.tenant)).replaceAll("docker.io/library/alpine:3.22", place.image);
}

/** A folder in which `@nimbus/nimbus` can be imported. */
function folder(): string {
  const parent = path.join(SDK, "../node_modules/.cache");
  fs.mkdirSync(parent, { recursive: true });
  return fs.mkdtempSync(path.join(parent, "nimbus-"));
}

async function run(file: string, place: Place): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env["PATH"], NIMBUS_ENDPOINT: place.url, NIMBUS_TOKEN: place.token, NIMBUS_TENANT: place.tenant, NIMBUS_IMAGE: place.image };
    execFile(process.execPath, [file], { env, timeout: 120_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${error.message}\n${stderr}\n${stdout}`));
    });
  });
}

/** Checks the types of a page's examples, runs them, and compares what they print with what they say. */
export async function tell(page: string, place: Place): Promise<void> {
  const source = examplesOf(page);
  const where = folder();
  try {
    const file = path.join(where, "page.ts");
    fs.writeFileSync(file, adapted(source, place));
    expect(mistakes(file)).toEqual([]);
    const { outputText } = ts.transpileModule(fs.readFileSync(file, "utf8"), { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext } });
    const program = path.join(where, "page.mjs");
    fs.writeFileSync(program, outputText);
    const printed = (await run(program, place)).split("\n").filter((line) => line !== "");
    const wanted = promised(source);
    const said = printed.map((line, index) => (wanted[index]?.test(line) === true ? "as promised" : `${line} instead of ${String(wanted[index])}`));
    expect(said).toEqual(wanted.map(() => "as promised"));
  } finally {
    fs.rmSync(where, { recursive: true, force: true });
  }
}

/** Runs the script of the quickstart. */
export async function quickstart(place: Place): Promise<string> {
  const where = folder();
  try {
    const file = path.join(where, "sandbox.mjs");
    fs.copyFileSync(path.join(ROOT, "examples/quickstart/sandbox.mjs"), file);
    return await run(file, place);
  } finally {
    fs.rmSync(where, { recursive: true, force: true });
  }
}

function mistakes(file: string): string[] {
  const program = ts.createProgram([file], {
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    moduleDetection: ts.ModuleDetectionKind.Force,
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    noEmit: true,
    types: ["node"],
  });
  return ts.getPreEmitDiagnostics(program).map((one) => ts.flattenDiagnosticMessageText(one.messageText, "\n"));
}
