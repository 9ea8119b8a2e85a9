import { useState, useSyncExternalStore } from "react";
import type { LogSource } from "~/api/workloads";
import { explain } from "~/app/problem";
import { LogView } from "~/ui/log-view";
import { StatusDot } from "~/ui/status";
import { LogFeed } from "./log-feed";

/** The log of a sandbox or a service. `live` is whether more is to come. Give it a key that changes with what it shows. */
export function Logs({ source, live }: { source: LogSource; live: boolean }) {
  const [feed] = useState(() => new LogFeed(source, live));
  const { rows, phase, error } = useSyncExternalStore(feed.subscribe, feed.read);
  return (
    <LogView
      label="log"
      rows={rows}
      note={
        <span className="text-xs text-muted">
          {phase === "following" ? (
            <StatusDot tone="good">Live</StatusDot>
          ) : phase === "lost" ? (
            <StatusDot tone="wait" moving>
              Reconnecting
            </StatusDot>
          ) : phase === "loading" ? (
            <StatusDot tone="idle">Loading</StatusDot>
          ) : (
            "Complete"
          )}
        </span>
      }
      empty={phase === "lost" ? explain(error).what : phase === "loading" ? "Loading the log." : "Nothing was written yet."}
    />
  );
}
