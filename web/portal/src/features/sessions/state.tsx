import type { WorkSession } from "~/api/workloads";
import { StatusDot, type Tone } from "~/ui/status";

const STATE: Record<WorkSession["status"]["lifecycleState"], { label: string; tone: Tone }> = {
  open: { label: "Open", tone: "good" },
  closed: { label: "Closed", tone: "idle" },
  expired: { label: "Expired", tone: "idle" },
};

const REASONS: Record<string, string> = {
  client_close: "closed by its client",
  expired: "its time was over",
  service_force_deleted: "the service was deleted",
  channel_open_failed: "a channel could not be opened",
  target_stopped: "the sandbox was stopped",
  target_failed: "the sandbox failed",
  target_replaced: "the sandbox was replaced",
  tenant_deleted: "the tenant was deleted",
  admin_revoked: "closed by an administrator",
};

export function closeText(session: WorkSession): string | null {
  const { closeReason } = session.status;
  return closeReason == null ? null : (REASONS[closeReason] ?? closeReason);
}

export function SessionStateDot({ session }: { session: WorkSession }) {
  const { label, tone } = STATE[session.status.lifecycleState];
  return <StatusDot tone={tone}>{label}</StatusDot>;
}
