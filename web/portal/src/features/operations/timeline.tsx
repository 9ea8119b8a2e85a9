import type { Operation } from "~/api/types";
import { announce, Steps } from "~/ui/steps";
import { useNow } from "~/ui/time";
import { isActive, stepItems } from "./steps";

/** The steps of one operation, moving while it runs, and announced one by one. */
export function Timeline({ operation }: { operation: Operation }) {
  const now = useNow(isActive(operation));
  const items = stepItems(operation.steps);
  return (
    <>
      <Steps steps={items} now={now} />
      <p role="status" aria-live="polite" className="sr-only">
        {operation.state === "queued" ? "Waiting to start" : announce(items)}
      </p>
    </>
  );
}
