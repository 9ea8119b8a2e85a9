import { useMutation } from "@tanstack/react-query";
import { api } from "~/api/endpoints";
import { InlineError } from "~/app/problem";
import { installKeyCommand } from "~/features/machines/ssh";
import { downloadText } from "~/ui/clipboard";
import { Button } from "~/ui/button";
import { CommandLine, CopyButton } from "~/ui/copy";
import { DownloadIcon } from "~/ui/icons";
import { Panel } from "~/ui/states";

/** The private half of a generated key: handed out once, kept only in this page. */
export function PrivateKeyPanel({ operationId, keyName, onTaken }: { operationId: string; keyName: string; onTaken: () => void }) {
  const fetchKey = useMutation({
    mutationFn: () => api.privateKey(operationId),
    onSuccess: (key) => {
      onTaken();
      downloadText(key.key_name, key.private_key);
    },
  });
  const key = fetchKey.data;
  return (
    <Panel label="Private key">
      <div className="flex flex-col gap-4 p-5">
        <div className="flex flex-wrap items-start justify-between gap-3">
          <div className="min-w-0 max-w-prose">
            <h2 className="font-semibold">Private key</h2>
            <p className="text-sm text-muted">
              {key === undefined
                ? "It is shown only now. Nimbus forgets it the moment you take it, and cannot give it out again."
                : "Nimbus has forgotten it. It stays on this page until you leave."}
            </p>
          </div>
          <Button
            kind={key === undefined ? "primary" : "default"}
            isPending={fetchKey.isPending}
            pendingLabel="Fetching"
            onPress={() => {
              if (key === undefined) fetchKey.mutate();
              else downloadText(key.key_name, key.private_key);
            }}
          >
            <DownloadIcon /> {key === undefined ? "Download private key" : "Download again"}
          </Button>
        </div>
        {fetchKey.isError ? <InlineError error={fetchKey.error} /> : null}
        {key !== undefined ? (
          <div className="relative">
            <pre
              tabIndex={0}
              role="region"
              aria-label="Private key text"
              className="max-h-52 overflow-auto rounded-lg border border-line bg-sunken p-3 pr-12 font-mono text-xs"
            >
              {key.private_key}
            </pre>
            <CopyButton text={key.private_key} label="Copy private key" className="absolute top-2 right-3" />
          </div>
        ) : null}
        <div className="flex flex-col gap-1.5">
          <p className="text-xs text-muted">Put it where ssh looks for it, readable for you alone</p>
          <CommandLine command={installKeyCommand(key?.key_name ?? keyName)} label="key install command" />
        </div>
      </div>
    </Panel>
  );
}
