import { useState } from "react";
import type { CreateSandbox, Tenant } from "~/api/workloads";
import { CodeBlock } from "~/ui/code";
import { plural } from "~/ui/format";
import { Segments } from "~/ui/segments";
import { LIFETIMES, type SandboxDraft } from "./draft";
import { cliSnippet, curlSnippet, sdkSnippet } from "./snippets";

const KINDS = [
  { key: "sdk", label: "SDK" },
  { key: "cli", label: "CLI" },
  { key: "curl", label: "curl" },
] as const;

/** What will happen when the button is pressed, and how to have it from elsewhere. */
export function Plan({ draft, request, tenant, quota }: { draft: SandboxDraft; request: CreateSandbox; tenant: string; quota?: NonNullable<Tenant["quota"]> }) {
  const [kind, setKind] = useState<"sdk" | "cli" | "curl">("sdk");
  const origin = window.location.origin;
  const image = draft.image.trim() === "" ? "the image" : draft.image.trim();
  const life = LIFETIMES.find((item) => item.key === draft.ttl);
  const shown = draft.image.trim() === "" ? { ...request, spec: { ...request.spec, root: { kind: "oci_image" as const, source: { kind: "reference" as const, reference: "busybox:1" } } } } : request;
  const text = kind === "sdk" ? sdkSnippet(shown, origin, tenant) : kind === "cli" ? cliSnippet(shown, tenant) : curlSnippet(shown, origin, tenant);
  const ways = request.spec.network?.egress.allow.length ?? 0;
  return (
    <aside aria-label="What will happen" className="flex min-w-0 flex-col gap-4 rounded-lg border border-line bg-sunken p-5 text-sm xl:sticky xl:top-20">
      <h2 className="text-base font-semibold">What will happen</h2>
      <ol className="flex flex-col gap-3">
        <Line n={1}>
          The host with room and, if there is one, a warm container of <code className="font-mono font-medium break-all">{image}</code> is chosen. A cold start pulls the image first.
        </Line>
        <Line n={2}>
          {draft.run === "idle"
            ? "It waits for a shell, commands and files."
            : draft.run === "image"
              ? "The image's own command runs; the sandbox ends when it does."
              : "Your command runs; the sandbox ends when it does."}
          {draft.profile === "desktop" ? " A browser starts beside it." : ""}
        </Line>
        <Line n={3}>{ways === 0 ? "It has no network at all." : `It reaches ${plural(ways, "destination")} and nothing else; every other try is refused and noted.`}</Line>
        <Line n={4}>{life === undefined || life.key === "none" ? "It runs until it is stopped." : `It is stopped after ${life.label}; you can give it more time.`}</Line>
      </ol>
      {quota?.limit.sandboxes !== undefined ? (
        <p className="tabular text-muted">
          {quota.used.sandboxes ?? 0} of {quota.limit.sandboxes} sandboxes of this tenant are in use.
        </p>
      ) : null}
      <div className="flex min-w-0 flex-col gap-2 border-t border-line pt-4">
        <div className="flex items-center justify-between gap-3">
          <p className="text-xs text-muted">The same from a program</p>
          <Segments label="The same with" options={KINDS} value={kind} onChange={setKind} />
        </div>
        <CodeBlock text={text} label={`${KINDS.find((item) => item.key === kind)?.label ?? ""} snippet`} />
      </div>
    </aside>
  );
}

function Line({ n, children }: { n: number; children: React.ReactNode }) {
  return (
    <li className="flex gap-3">
      <span aria-hidden="true" className="tabular flex size-5 shrink-0 items-center justify-center rounded-full border border-line-strong text-xs text-muted">
        {n}
      </span>
      <div className="min-w-0">{children}</div>
    </li>
  );
}
