import { useSyncExternalStore } from "react";
import { age, exactTime } from "./format";

/** One clock for the whole page; it runs only while somebody looks at it. */
function clock(period: number) {
  let now = Date.now();
  let timer: ReturnType<typeof setInterval> | null = null;
  const listeners = new Set<() => void>();
  return {
    subscribe: (listener: () => void) => {
      listeners.add(listener);
      if (timer === null) {
        now = Date.now();
        timer = setInterval(() => {
          now = Date.now();
          for (const each of listeners) each();
        }, period);
      }
      return () => {
        listeners.delete(listener);
        if (listeners.size === 0 && timer !== null) {
          clearInterval(timer);
          timer = null;
        }
      };
    },
    read: () => {
      if (timer === null && Date.now() - now > period) now = Date.now();
      return now;
    },
  };
}

const seconds = clock(1_000);
const minutes = clock(20_000);
const still = () => () => undefined;

/** Now, moving every second while `active`. */
export function useNow(active: boolean): number {
  return useSyncExternalStore(active ? seconds.subscribe : still, seconds.read);
}

export function Age({ at }: { at: string }) {
  const now = useSyncExternalStore(minutes.subscribe, minutes.read);
  return (
    <time dateTime={at} title={exactTime(at)} className="tabular whitespace-nowrap">
      {age(at, now)}
    </time>
  );
}
