import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { work, type Sandbox } from "~/api/workloads";
import { InlineError } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { EndpointList } from "~/features/work/parts";
import { sandboxRefusal } from "~/features/work/rules";
import { Button } from "~/ui/button";
import { CommandLine } from "~/ui/copy";
import { Field } from "~/ui/field";
import { exactTime } from "~/ui/format";
import { Select } from "~/ui/select";

const TIMES = [
  { key: "900000", label: "15 minutes" },
  { key: "3600000", label: "1 hour" },
  { key: "86400000", label: "24 hours" },
] as const;

/** Makes a link under which a port of the sandbox opens in a browser. */
export function Preview({ sandbox }: { sandbox: Sandbox }) {
  const { tenantId, id } = sandbox.metadata;
  const first = sandbox.spec.sandbox.ports?.[0]?.guestPort;
  const [port, setPort] = useState(first === undefined ? "" : String(first));
  const [ttl, setTtl] = useState<(typeof TIMES)[number]["key"]>("900000");
  const refusal = sandboxRefusal(sandbox, "use");
  const make = useMutation({ mutationFn: () => work.preview(tenantId, id, Number(port), Number(ttl)) });
  const valid = /^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65_535;
  const url = make.data === undefined ? null : new URL(make.data.url, window.location.origin).href;
  return (
    <div className="flex flex-col gap-4 p-4">
      <p className="max-w-prose text-sm text-muted">Opens any port inside in a browser, published or not. Whoever has the link can use it until it expires.</p>
      <Form
        className="flex flex-wrap items-end gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          if (valid && refusal === null && !make.isPending) make.mutate();
        }}
      >
        <div className="w-28">
          <Field label="Port inside" value={port} onChange={setPort} mono inputMode="numeric" placeholder="8080" isDisabled={refusal !== null} />
        </div>
        <Select tall label="Works for" options={TIMES} value={ttl} onChange={setTtl} className="w-36" />
        <Button type="submit" kind="primary" className="h-9" isPending={make.isPending} pendingLabel="Making" disabledReason={refusal ?? (valid ? null : "Enter a port first.")}>
          Make link
        </Button>
      </Form>
      {make.isError ? <InlineError error={make.error} /> : null}
      {url !== null ? (
        <div className="flex flex-col gap-2" role="status">
          <CommandLine command={url} label="preview link" plain wrap />
          <p className="text-sm text-muted">
            <a href={url} target="_blank" rel="noreferrer noopener" className={TEXT_LINK}>
              Open in a new tab
            </a>
            {make.data?.expiresAt !== undefined ? `, works until ${exactTime(make.data.expiresAt)}` : ""}
          </p>
        </div>
      ) : null}
      {sandbox.status.endpoints.length > 0 ? (
        <div className="flex flex-col gap-1 border-t border-line pt-3 text-sm">
          <h3 className="font-medium">Published on the host</h3>
          <EndpointList endpoints={sandbox.status.endpoints} />
        </div>
      ) : null}
    </div>
  );
}
