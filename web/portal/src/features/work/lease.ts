import { useEffect, useState } from "react";
import { work, type Channel, type SessionTarget } from "~/api/workloads";

const TTL_MS = 3_600_000;

/** The session of one page: opened when something needs it, closed when the page is left. */
export class Lease {
  private current: Promise<string> | null = null;
  private id: string | null = null;

  constructor(
    private readonly tenant: string,
    private readonly target: SessionTarget,
    private readonly channels: Channel[],
  ) {}

  /** The open session; another one when `over` was the last. */
  readonly take = (over: string | null): Promise<string> => {
    if (this.current === null || (over !== null && over === this.id)) {
      const opened = work
        .openSession({ tenantId: this.tenant, target: this.target, channels: this.channels, requestedTtlMs: TTL_MS })
        .then((session) => {
          this.id = session.metadata.id;
          // Left before it was there: nobody else would close it.
          if (this.current !== opened) this.close(session.metadata.id);
          return session.metadata.id;
        });
      this.current = opened;
      opened.catch(() => {
        // What was refused once may be granted later.
        if (this.current === opened) this.current = null;
      });
    }
    return this.current;
  };

  release(): void {
    if (this.id !== null) this.close(this.id);
    this.id = null;
    this.current = null;
  }

  private close(id: string): void {
    // Nobody waits for the answer: a lease that stays open runs out by itself.
    work.closeSession(id, "page left").catch(() => undefined);
  }
}

/** A lease that ends with the page. */
export function useLease(tenant: string, target: SessionTarget, channels: Channel[]): Lease {
  const [lease] = useState(() => new Lease(tenant, target, channels));
  useEffect(() => {
    const leave = () => {
      lease.release();
    };
    window.addEventListener("pagehide", leave);
    return () => {
      window.removeEventListener("pagehide", leave);
      lease.release();
    };
  }, [lease]);
  return lease;
}
