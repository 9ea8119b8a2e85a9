import type { Channel, Sandbox, Service, SessionTarget, WorkSession } from "~/api/workloads";
import { imageName, imageOf, sandboxName, shortTail, slugOf } from "~/features/sandboxes/name";

export interface TargetChoice {
  key: string;
  label: string;
  hint: string;
  target: SessionTarget;
  channels: readonly Channel[];
}

export const CHANNEL_TEXT: Record<Channel, { label: string; text: string }> = {
  stdio: { label: "Terminal", text: "Input and output of the main process, and shells beside it." },
  files: { label: "Files", text: "Read and write files inside." },
  cdp: { label: "DevTools", text: "The protocol of the browser inside, unchanged." },
  page: { label: "Page", text: "A small language for one page of the browser inside." },
};

/** What a session can be opened on right now. */
export function choices(sandboxes: readonly Sandbox[], services: readonly Service[]): TargetChoice[] {
  return [
    ...services
      .filter((service) => service.status.lifecycleState === "ready" && service.status.sandboxId != null)
      .map((service) => ({
        key: `service:${service.metadata.name}`,
        label: service.metadata.name,
        hint: "service",
        target: { service: { name: service.metadata.name } },
        channels: ["stdio", "files"] as const,
      })),
    ...sandboxes
      .filter((sandbox) => sandbox.status.lifecycleState === "ready")
      .map((sandbox) => ({
        key: `sandbox:${sandbox.metadata.id}`,
        label: `${sandboxName(sandbox)} ${shortTail(sandbox.metadata.id)}`,
        hint: imageName(imageOf(sandbox) ?? "sandbox"),
        target: { sandbox: { id: sandbox.metadata.id } },
        channels: sandbox.spec.profile === "desktop" ? (["stdio", "files", "cdp", "page"] as const) : (["stdio", "files"] as const),
      })),
  ];
}

export function targetName(session: WorkSession): string {
  const { target } = session.spec;
  return "service" in target ? target.service.name : slugOf(target.sandbox.id);
}

export function targetKind(session: WorkSession): "service" | "sandbox" {
  return "service" in session.spec.target ? "service" : "sandbox";
}
