import { ButtonLink } from "~/ui/button";
import { EmptyState } from "~/ui/states";

/** No box yet: what an administrator does, and what everybody else waits for. */
export function NotPaired({ admin, what }: { admin: boolean; what: string }) {
  return admin ? (
    <EmptyState
      title="No GPU box is paired"
      action={
        <ButtonLink to="/settings/gpu" kind="primary">
          Pair a box
        </ButtonLink>
      }
      command="nimbus gpu pair"
    >
      {what} Pairing takes one line on the box, pasted into its terminal.
    </EmptyState>
  ) : (
    <EmptyState title="No GPU box is paired">{what} An administrator pairs one under Settings; ask them.</EmptyState>
  );
}
