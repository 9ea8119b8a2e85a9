import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { deployment, type JoinToken } from "~/api/deployment";
import { InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { CommandLine } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { duration } from "~/ui/format";
import { PlusIcon } from "~/ui/icons";

/** What a new host runs. The token goes through a file: what is in a command's arguments, everybody on that host can read. */
function commands({ token }: JoinToken, url: string): string {
  return [`(umask 077; printf %s '${token}' > join-token)`, `sudo nimbus node join ${url} --token-file join-token`].join("\n");
}

/** Lets another host run sandboxes for this installation. */
export function AddHost() {
  const [isOpen, setOpen] = useState(false);
  const make = useMutation({ mutationFn: deployment.joinToken });
  const close = () => {
    setOpen(false);
    make.reset();
  };
  return (
    <>
      <Button
        kind="primary"
        onPress={() => {
          setOpen(true);
        }}
      >
        <PlusIcon /> Add host
      </Button>
      <Dialog title="Add host" isOpen={isOpen} onClose={close} wide>
        {make.data === undefined ? (
          <p>A host with a container engine joins with a token, gets a credential of its own for the bus, and reports within seconds.</p>
        ) : (
          <div className="flex flex-col gap-3">
            <p>Run this on the new host. The token is good for one host, and for {duration(make.data.expires_in_seconds * 1000)}; it is shown only now.</p>
            <CommandLine command={commands(make.data, window.location.origin)} label="join commands" plain wrap />
          </div>
        )}
        {make.isError ? <InlineError error={make.error} /> : null}
        <DialogActions>
          {make.data === undefined ? (
            <>
              <Button onPress={close}>Cancel</Button>
              <Button
                kind="primary"
                isPending={make.isPending}
                pendingLabel="Making a token"
                onPress={() => {
                  make.mutate();
                }}
              >
                Make token
              </Button>
            </>
          ) : (
            <Button kind="primary" onPress={close}>
              Done
            </Button>
          )}
        </DialogActions>
      </Dialog>
    </>
  );
}
