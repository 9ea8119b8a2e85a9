import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { pageCall } from "~/api/page";
import type { Sandbox } from "~/api/workloads";
import { InlineError } from "~/app/problem";
import { sandboxName } from "./name";
import { sandboxRefusal } from "~/features/work/rules";
import { Button } from "~/ui/button";
import { Field } from "~/ui/field";

/** What the browser of a desktop sandbox shows. */
export function ScreenView({ sandbox, session }: { sandbox: Sandbox; session: (over: string | null) => Promise<string> }) {
  const [url, setUrl] = useState("");
  const refusal = sandboxRefusal(sandbox, "session");
  const shot = useMutation({
    mutationFn: async (goTo: string | null) => {
      const id = await session(null);
      return pageCall(id, [...(goTo === null ? [] : [{ method: "goto", params: { url: goTo } }]), { method: "screenshot", params: { format: "png" } }]);
    },
  });
  return (
    <div className="flex flex-col gap-4 p-4">
      <Form
        className="flex flex-wrap items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          if (refusal === null && !shot.isPending) shot.mutate(url.trim() === "" ? null : url.trim());
        }}
      >
        <div className="min-w-56 flex-1">
          <Field label="Address" value={url} onChange={setUrl} mono placeholder="http://127.0.0.1:8080" autoComplete="off" description="Empty leaves the page as it is." isDisabled={refusal !== null} />
        </div>
        <Button type="submit" kind="primary" className="mb-[1.375rem] h-9" isPending={shot.isPending} pendingLabel="Looking" disabledReason={refusal}>
          Take a screenshot
        </Button>
      </Form>
      {shot.isError ? <InlineError error={shot.error} /> : null}
      {shot.data !== undefined ? (
        <img src={`data:image/png;base64,${shot.data}`} alt={`The browser in ${sandboxName(sandbox)}`} className="max-w-full rounded border border-line" />
      ) : (
        <p className="text-sm text-muted">{refusal ?? "Nothing was looked at yet."}</p>
      )}
    </div>
  );
}
