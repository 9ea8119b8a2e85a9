import type { QueryClient, QueryKey } from "@tanstack/react-query";

/** Between two looks at something that changes all the time. */
const AGAIN_MS = 200;

export interface LateAnswers {
  /** Something was told about what these keys hold. */
  told: (keys: readonly QueryKey[]) => void;
  stop: () => void;
}

/**
 * An answer that was asked for before an event and comes after it may be older than the event, and nothing would tell
 * again: it is asked for once more.
 */
export function watchLateAnswers(client: QueryClient): LateAnswers {
  const cache = client.getQueryCache();
  const late = new Set<string>();
  const timers = new Set<ReturnType<typeof setTimeout>>();

  const unsubscribe = cache.subscribe((event) => {
    const { query } = event;
    if (event.type === "removed") late.delete(query.queryHash);
    // What the event itself has put there is no answer.
    if (event.type !== "updated" || event.action.type !== "success" || event.action.manual === true) return;
    if (!late.delete(query.queryHash)) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      void client.invalidateQueries({ predicate: ({ queryHash }) => queryHash === query.queryHash });
    }, AGAIN_MS);
    timers.add(timer);
  });

  return {
    told: (keys) => {
      for (const queryKey of keys) {
        const query = cache.find({ queryKey, exact: true });
        if (query?.state.fetchStatus === "fetching") late.add(query.queryHash);
      }
    },
    stop: () => {
      unsubscribe();
      timers.forEach(clearTimeout);
    },
  };
}
